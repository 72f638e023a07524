import { connectedGroups, cutOffNodes, type Harm, isSameHarm, NO_HARM, nodeOf } from './cluster-states.js';
import type { Answered, HistoryEvent, Uneventful } from './events.js';

/*
 * Condenses a history that is too long for memory. Nearly all of its events belong to messages that need no
 * judgement: submitted, confirmed, delivered once and unchanged, and consumed. Such messages are only counted, by one
 * event `uneventful` for all of them between two other events. All other events stay as they are and keep their order.
 *
 * The order of one producer's messages (PP-20) needs no event of a message that came in order: no other message has
 * overtaken it, and it has overtaken none. Some messages that waited at a crash are kept too: they show that the order
 * was measured.
 *
 * Of a cluster, what its nodes answered after a change of its state is kept (PP-23, PP-24): the confirmations of nodes that
 * were cut off into a minority, and the answers of the largest group until its first confirmation.
 *
 * The first pass over the history takes a few bytes for each message and each event. The second pass keeps what needs
 * judgement. A hash of 32 bits stands for each message. Two messages with the same hash count as one that was submitted
 * twice, and are kept.
 */

const SUBMITTED = 1;
const CONFIRMED = 2;
const REJECTED = 4;
const INDEFINITE = 8;
const DELIVERED = 16;
const CONSUMED = 32;
/** The message was consumed before it was confirmed. */
const CONSUMED_FIRST = 64;
/** The message must be judged. */
const KEPT = 128;
const ANSWERED = CONFIRMED | REJECTED | INDEFINITE;
const OUTCOMES = { confirmed: CONFIRMED, rejected: REJECTED, indefinite: INDEFINITE } as const;

/** Kinds of events that can be counted, by the number that stands for them in the list of all events. */
const KINDS = ['submitted', 'answered', 'delivered', 'consumed'] as const;
const KIND_BITS = 3;
/** Number of an event that is always kept. */
const ALWAYS_KEPT = 7;
const SETTLED = 6;
/** Deliveries with greater numbers are kept: the set of those that are not has one bit for each number. */
const MAX_SEQUENCE = 1 << 28;

/**
 * Part of the greatest number of events that may be messages which waited at a crash; see `Condenser`. A checker needs
 * some of them (PP-20).
 */
const WAITING_SHARE = 1 / 50;
/** Greatest part of these messages that is kept for one crash. */
const WAITING_SHARE_OF_CRASH = 1 / 4;
/** Number of the latest messages in which waiting ones are searched at a crash. A history may have millions, and many crashes. */
const MAX_WAITING_LOOKED_AT = 10_000;
/**
 * Part of the greatest number of events that may be messages which came after a later one of their producer. Only few
 * targets claim an order, and without the claim nearly every message may be one.
 */
const OVERTAKEN_SHARE = 1 / 100;

/** Share of the greatest number of events that may be kept because of what nodes answered after a change of the cluster. */
const CLUSTER_SHARE = 1 / 10;

/** An array of numbers that grows. It holds them in parts, so that it never copies all of them. */
class NumberList {
  static readonly #PART = 1 << 20;
  readonly #parts: Uint32Array[] = [];
  length = 0;

  push(value: number): void {
    const at = this.length % NumberList.#PART;
    if (at === 0) this.#parts.push(new Uint32Array(NumberList.#PART));
    const part = this.#parts.at(-1);
    if (part) part[at] = value;
    this.length += 1;
  }

  at(index: number): number {
    return this.#parts[Math.floor(index / NumberList.#PART)]?.[index % NumberList.#PART] ?? 0;
  }

  set(index: number, value: number): void {
    const part = this.#parts[Math.floor(index / NumberList.#PART)];
    if (part) part[index % NumberList.#PART] = value;
  }
}

/** What is known of each message: its state and what later events are compared with. */
class MessageTable {
  readonly states = new NumberList();
  /** Hash of the submitted digest. */
  readonly digests = new NumberList();
  readonly recipients = new NumberList();
  readonly sequences = new NumberList();
  /** Number of the producer in its round, from 0; see `Condenser`. */
  readonly producers = new NumberList();
  /** Numbers of the events of the submit and of the answer. */
  readonly submits = new NumberList();
  readonly answers = new NumberList();
  readonly #hashes = new NumberList();
  /** Open addressing: number of the message plus 1; 0 for a free slot. */
  #slots = new Uint32Array(1 << 16);

  /** Returns the number of the message, which is made at the first call. */
  numberOf(id: string): number {
    const hash = hashOf(id);
    let slot = hash & (this.#slots.length - 1);
    for (let found = this.#slots[slot] ?? 0; found !== 0; found = this.#slots[slot] ?? 0) {
      if (this.#hashes.at(found - 1) === hash) return found - 1;
      slot = (slot + 1) & (this.#slots.length - 1);
    }
    const number = this.states.length;
    this.#slots[slot] = number + 1;
    const { states, digests, recipients, sequences, producers, submits, answers } = this;
    for (const list of [states, digests, recipients, sequences, producers, submits, answers]) list.push(0);
    this.#hashes.push(hash);
    if (this.states.length * 2 > this.#slots.length) this.#grow();
    return number;
  }

  #grow(): void {
    const slots = new Uint32Array(this.#slots.length * 2);
    for (let number = 0; number < this.#hashes.length; number++) {
      let slot = this.#hashes.at(number) & (slots.length - 1);
      while (slots[slot] !== 0) slot = (slot + 1) & (slots.length - 1);
      slots[slot] = number + 1;
    }
    this.#slots = slots;
  }
}

/** FNV-1a, with a last step that spreads equal beginnings over the table. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  hash ^= hash >>> 15;
  return Math.imul(hash, 0x2c1b3c6d) >>> 0;
}

/** The two passes over one history. Call `note` with each event, and then `keep` with the number of each event. */
export class Condenser {
  readonly #messages = new MessageTable();
  /** For each event its kind, and the number of its message. */
  readonly #events = new NumberList();
  /** True if the order of the submits has a meaning: the states of an exploration name messages by it. */
  #keepAll = false;
  #round = 0;
  /** Numbers of the producers by round and producer. */
  readonly #producers = new Map<string, number>();
  /**
   * The last submitted message of each producer among its delivered ones: of the confirmed messages, and of all. A delivered
   * message can still be confirmed later.
   */
  readonly #latest: { confirmed: number | undefined; any: number | undefined }[] = [];
  /** Numbers of messages that may still be kept because of the order. */
  #waitingLeft: number;
  readonly #waitingPerCrash: number;
  #overtakenLeft: number;
  /** Names of the nodes; empty for a target without `nodes`. */
  #nodes: readonly string[] = [];
  /** What the kit does to the nodes now, and the number of the event that says so. */
  #harm: Harm = NO_HARM;
  #harmedAt = 0;
  /** For each node that is cut off into a minority, the number of the event since which it is. */
  #cutOff = new Map<string, number>();
  /** Nodes of the largest group, as long as none of them has confirmed a message since the last change was complete. */
  #silent = new Set<string>();
  /** Number of the event that says that the last change is complete, or that begins it. */
  #silentAt = 0;
  /** `#silent` before the last change, and the number of the event of that state: its submits may be answered only now. */
  #formerlySilent: { nodes: ReadonlySet<string>; since: number } = { nodes: new Set(), since: 0 };
  #clusterLeft: number;
  #omittedDeliveries = new Uint8Array(1 << 16);
  #count: Uneventful | undefined;
  /** Number of events of the first pass that concern no message. All of them are kept. */
  othersCount = 0;

  /** @param maxEvents number of events that a reader holds in memory. */
  constructor(maxEvents: number) {
    this.#waitingLeft = Math.ceil(maxEvents * WAITING_SHARE);
    this.#waitingPerCrash = Math.ceil(this.#waitingLeft * WAITING_SHARE_OF_CRASH);
    this.#overtakenLeft = Math.ceil(maxEvents * OVERTAKEN_SHARE);
    this.#clusterLeft = Math.ceil(maxEvents * CLUSTER_SHARE);
  }

  /** Takes the next event in the first pass. */
  note(event: HistoryEvent): void {
    if (event.kind === 'installed') {
      this.#round = event.round;
      this.#noteCluster(NO_HARM);
      this.#nodes = event.nodes ?? [];
      this.#silent = new Set();
    }
    if (event.kind === 'cluster-state') this.#noteCluster(event);
    if (event.kind === 'service-exited' && this.#harm.down.includes(nodeOf(event.service)))
      this.#awaitAgain();
    const kind = KINDS.indexOf(event.kind as (typeof KINDS)[number]);
    if (kind >= 0 && 'id' in event && event.id !== null) {
      const number = this.#messages.numberOf(event.id);
      this.#noteMessage(event, number);
      this.#events.push((number << KIND_BITS) | kind);
      return;
    }
    if (event.kind === 'refused' && event.id !== null) this.#mark(event.id);
    if (event.kind === 'fault') {
      for (const id of event.rotted) this.#mark(id);
      if (event.hit && event.scope !== 'none') this.#markWaiting();
    }
    if (event.kind === 'log-position' || event.kind === 'state-explored') this.#keepAll = true;
    if (event.kind !== 'settled') this.othersCount += 1;
    this.#events.push(event.kind === 'settled' ? SETTLED : ALWAYS_KEPT);
  }

  #noteCluster(harm: Harm): void {
    if (isSameHarm(this.#harm, harm)) {
      // A repeated state says that the change is complete.
      this.#awaitAgain();
      return;
    }
    this.#harm = harm;
    this.#formerlySilent = { nodes: this.#silent, since: this.#silentAt };
    this.#harmedAt = this.#events.length;
    const minority = cutOffNodes(this.#nodes, harm);
    for (const node of [...this.#cutOff.keys()]) if (!minority.has(node)) this.#cutOff.delete(node);
    for (const node of minority) if (!this.#cutOff.has(node)) this.#cutOff.set(node, this.#harmedAt);
    this.#awaitAgain();
  }

  /** From now on, the answers of the largest group are kept until its first confirmation. */
  #awaitAgain(): void {
    this.#silent = new Set(connectedGroups(this.#nodes, this.#harm)[0]);
    this.#silentAt = this.#events.length;
  }

  /** Marks a message whose answer tells what a node did after a change of the cluster. */
  #noteNode({ outcome, node = '' }: Answered, number: number): void {
    const submit = this.#messages.submits.at(number);
    const isConfirmed = outcome === 'confirmed';
    const isOfMinority = isConfirmed && submit > (this.#cutOff.get(node) ?? Number.POSITIVE_INFINITY);
    const isAwaited = this.#silent.has(node) && submit > this.#silentAt;
    const { nodes, since } = this.#formerlySilent;
    const wasAwaited = nodes.has(node) && submit > since && submit < this.#harmedAt;
    if (isAwaited && isConfirmed) this.#silent.clear();
    if (!(isOfMinority || isAwaited || wasAwaited) || this.#clusterLeft === 0) return;
    this.#clusterLeft -= 1;
    this.#messages.states.set(number, this.#messages.states.at(number) | KEPT);
  }

  #mark(id: string): void {
    const number = this.#messages.numberOf(id);
    this.#messages.states.set(number, this.#messages.states.at(number) | KEPT);
  }

  /** Marks messages that wait at a crash. */
  #markWaiting(): void {
    const { states } = this.#messages;
    const least = Math.max(0, this.#waitingLeft - this.#waitingPerCrash);
    const first = Math.max(0, states.length - MAX_WAITING_LOOKED_AT);
    for (let number = first; number < states.length && this.#waitingLeft > least; number++) {
      const state = states.at(number);
      if ((state & CONFIRMED) === 0 || (state & DELIVERED) !== 0) continue;
      states.set(number, state | KEPT);
      this.#waitingLeft -= 1;
    }
  }

  /** Marks a message at its first delivery if a later message of its producer came before it, and that message. */
  #noteOrder(number: number, isConfirmed: boolean): void {
    const { producers, submits, answers, states } = this.#messages;
    const latest = this.#latest[producers.at(number)];
    if (latest === undefined) return;
    /** True if the submit of a message came before an event. */
    const isBefore = (one: number | undefined, event: number) => one === undefined || submits.at(one) < event;
    const overtakers = [latest.confirmed, latest.any].filter(
      (other) => other !== undefined && !isBefore(other, answers.at(number)),
    );
    if (isConfirmed && overtakers.length > 0 && this.#overtakenLeft > 0) {
      this.#overtakenLeft -= 1;
      for (const one of [...overtakers, number])
        if (one !== undefined) states.set(one, states.at(one) | KEPT);
    }
    const submit = submits.at(number);
    if (isBefore(latest.any, submit)) latest.any = number;
    if (isConfirmed && isBefore(latest.confirmed, submit)) latest.confirmed = number;
  }

  #producerOf(producer: number): number {
    const key = `${this.#round}-${producer}`;
    const known = this.#producers.get(key);
    if (known !== undefined) return known;
    this.#producers.set(key, this.#latest.length);
    return this.#latest.push({ confirmed: undefined, any: undefined }) - 1;
  }

  #noteMessage(event: HistoryEvent, number: number): void {
    const { states, digests, recipients, sequences, producers, submits, answers } = this.#messages;
    const state = states.at(number);
    let next = state | KEPT;
    if (event.kind === 'submitted' && state === 0) {
      digests.set(number, hashOf(event.digest));
      recipients.set(number, event.recipients);
      producers.set(number, this.#producerOf(event.producer));
      submits.set(number, this.#events.length);
      next = SUBMITTED;
    }
    if (event.kind === 'answered') answers.set(number, this.#events.length);
    if (event.kind === 'answered' && (state & SUBMITTED) !== 0 && (state & ANSWERED) === 0)
      next = state | OUTCOMES[event.outcome] | ((state & CONSUMED) === 0 ? 0 : CONSUMED_FIRST);
    if (event.kind === 'delivered' && (state & SUBMITTED) !== 0 && (state & DELIVERED) === 0) {
      const isWhole =
        hashOf(event.digest) === digests.at(number) &&
        event.difference === undefined &&
        new Set(event.recipients).size === recipients.at(number) &&
        Number.isInteger(event.sequence) &&
        event.sequence >= 0 &&
        event.sequence < MAX_SEQUENCE;
      if (isWhole) {
        sequences.set(number, event.sequence);
        next = state | DELIVERED;
      }
    }
    if (event.kind === 'consumed' && (state & DELIVERED) !== 0 && (state & CONSUMED) === 0)
      if (event.sequence === sequences.at(number)) next = state | CONSUMED;
    states.set(number, next);
    if (event.kind === 'answered') this.#noteNode(event, number);
    if (event.kind === 'delivered' && (state & DELIVERED) === 0)
      this.#noteOrder(number, (state & CONFIRMED) !== 0);
  }

  /**
   * Takes an event in the second pass.
   * @param index number of the event in the history, from 0.
   * @param parse returns the event. It is called only for events that are kept.
   * @returns what takes its place: nothing, the event, or the count of the events before it and the event.
   */
  keep(index: number, parse: () => HistoryEvent): HistoryEvent[] {
    const entry = this.#events.at(index);
    const kind = entry & ((1 << KIND_BITS) - 1);
    if (kind === ALWAYS_KEPT) return [...this.takeCount(), parse()];
    if (kind === SETTLED) return this.#keepSettled(parse());
    const number = entry >>> KIND_BITS;
    const state = this.#messages.states.at(number);
    if (this.#keepAll || !isUneventful(state)) return [parse()];
    this.#countEvent(KINDS[kind], state, this.#messages.sequences.at(number));
    return [];
  }

  /** Returns the count of the omitted events since the last one, if there are any. */
  takeCount(): HistoryEvent[] {
    const count = this.#count;
    this.#count = undefined;
    return count === undefined ? [] : [count];
  }

  #keepSettled(event: HistoryEvent): HistoryEvent[] {
    if (event.kind !== 'settled' || this.#keepAll) return [event];
    const sequences = event.sequences.filter((sequence) => !this.#isOmitted(sequence));
    if (sequences.length > 0) return [{ ...event, sequences }];
    this.#counts().events += 1;
    return [];
  }

  #countEvent(kind: (typeof KINDS)[number] | undefined, state: number, sequence: number): void {
    const count = this.#counts();
    count.events += 1;
    if (kind === 'delivered') {
      count.delivered += 1;
      this.#omitDelivery(sequence);
    }
    if (kind === 'consumed') count.consumed += 1;
    if (kind !== 'answered') return;
    if ((state & CONFIRMED) !== 0) count.confirmed += 1;
    if ((state & REJECTED) !== 0) count.rejected += 1;
    if ((state & INDEFINITE) !== 0) count.indefinite += 1;
    if ((state & CONSUMED_FIRST) !== 0) count.confirmedAfterDelivery += 1;
  }

  #counts(): Uneventful {
    this.#count ??= {
      kind: 'uneventful',
      atMs: 0,
      events: 0,
      confirmed: 0,
      confirmedAfterDelivery: 0,
      rejected: 0,
      indefinite: 0,
      delivered: 0,
      consumed: 0,
    };
    return this.#count;
  }

  #omitDelivery(sequence: number): void {
    const byte = sequence >>> 3;
    if (byte >= this.#omittedDeliveries.length) {
      const larger = new Uint8Array(Math.max(byte + 1, 2 * this.#omittedDeliveries.length));
      larger.set(this.#omittedDeliveries);
      this.#omittedDeliveries = larger;
    }
    this.#omittedDeliveries[byte] = (this.#omittedDeliveries[byte] ?? 0) | (1 << (sequence & 7));
  }

  #isOmitted(sequence: number): boolean {
    return ((this.#omittedDeliveries[sequence >>> 3] ?? 0) & (1 << (sequence & 7))) !== 0;
  }
}

/** Returns whether the end of a message needs no judgement: it was consumed unchanged, or refused and never seen again. */
function isUneventful(state: number): boolean {
  const delivered = SUBMITTED | CONFIRMED | DELIVERED | CONSUMED;
  return (
    (state & ~CONSUMED_FIRST) === delivered ||
    state === (SUBMITTED | REJECTED) ||
    state === (SUBMITTED | INDEFINITE)
  );
}

/** Returns the number of events of a history, with those that were only counted. */
export function countEvents(history: readonly HistoryEvent[]): number {
  return history.reduce((sum, event) => sum + (event.kind === 'uneventful' ? event.events : 1), 0);
}
