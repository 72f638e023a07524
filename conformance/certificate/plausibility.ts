import { existsSync } from 'node:fs';
import { KitError } from '../errors.js';
import type { HistoryEvent } from '../history/events.js';
import { beyond, LimitError, limit } from '../limits.js';
import { readRegularFile } from '../read-file.js';
import { familyOf } from '../requirements/requirements.js';
import { FAULT_NAMES } from '../target-file/definition.js';
import { type HistoryObserver, sha256 } from './evidence.js';
import type { Facts } from './facts.js';

/*
 * Checks whether evidence can come from runs of the kit at all. Evidence is consistent when the certificate follows from
 * it. Evidence that was written by hand can be consistent too. These checks find the contradictions in such evidence:
 * impossible times, answers without a submit, more messages at risk than were confirmed. They do not prove that anything
 * was run. Only a signature says who vouches for that.
 */

/** Difference between two clocks, and step of one clock during a run, that is still plausible, in milliseconds. */
const CLOCK_TOLERANCE_MS = 10 * 60_000;
/** Time that a run may take beyond its budget: the wait for the last messages and a slow machine, in milliseconds. */
const OVERRUN_MS = 60 * 60_000;
/** Error of a duration that is rounded and measured beside the event, in milliseconds. */
const MEASUREMENT_ERROR_MS = 1000;
/** Upper bound of a program that is compared with the certified digest, in bytes. */
const MAX_PROGRAM_BYTES = 2 ** 30;
const DIGEST = /^[0-9a-f]{64}$/;
const ISO_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z$/;

/**
 * Checks the evidence for contradictions while its histories are read: of a long history, `Evidence` has only the events
 * that need judgement, and here every event counts. It holds the messages that are open, and no event.
 */
export class PlausibilityCheck {
  readonly #histories: HistoryCheck[] = [];

  /**
   * Begins the check of the next run; pass it to `readEvidence`.
   * @throws KitError bad-history (exit code 2), from the returned function, when more than `history-events` messages are
   *   open at the same time.
   */
  readonly observe: HistoryObserver = ({ facts, target }, file) => {
    const history = new HistoryCheck(file, { facts, target: target.name, protocol: target.protocol });
    this.#histories.push(history);
    return (event) => history.add(event);
  };

  /**
   * Returns the contradictions in the evidence, one line each; empty when it is plausible.
   * @param nowMs current time, in ms since 1970.
   */
  problems({ budgetMs }: Pick<Facts, 'budgetMs'>, nowMs: number): string[] {
    const problems: string[] = [];
    let totalMs = 0;
    let previousEndMs = Number.NEGATIVE_INFINITY;
    for (const history of this.#histories) {
      problems.push(...history.end());
      const { name, startMs, durationMs } = history;
      totalMs += durationMs;
      if (Number.isNaN(startMs)) continue;
      if (startMs + durationMs > nowMs + CLOCK_TOLERANCE_MS)
        problems.push(`${name}: its run ended in the future, at ${timeText(startMs + durationMs)}`);
      if (startMs < previousEndMs - CLOCK_TOLERANCE_MS)
        problems.push(`${name}: its run began at ${timeText(startMs)}, before the run before it had ended`);
      previousEndMs = startMs + durationMs;
    }
    const limitMs = budgetMs + this.#histories.length * OVERRUN_MS;
    if (!(budgetMs >= 1000)) problems.push(`evidence/facts.json: a budget of ${budgetMs} ms`);
    else if (totalMs > limitMs)
      problems.push(
        `evidence/facts.json: the runs took ${Math.round(totalMs / 1000)} s of a budget of ${budgetMs / 1000} s`,
      );
    return problems;
  }
}

/**
 * Compares the programs that a certificate names with the files of the same path on this machine. A difference is no
 * problem: another machine may have another version.
 * @returns one line for each program that differs.
 */
export function programDifferences({ programs }: Pick<Facts, 'programs'>): string[] {
  return programs.flatMap(({ name, path, sha256: certifiedDigest }) => {
    if (!path.startsWith('/') || !existsSync(path)) return [];
    try {
      const found = sha256(readRegularFile(path, MAX_PROGRAM_BYTES));
      return found === certifiedDigest
        ? []
        : [`${name}: ${path} of this machine is another build than the certified one (sha256 ${found})`];
    } catch {
      // The user may not read it, or it is no file here: then there is nothing to compare.
      return [];
    }
  });
}

interface Expected {
  facts: Pick<Facts, 'kitVersion' | 'seed'>;
  target: string;
  protocol: string;
}

/** Checks the events of one history, one after the other, with the memory of the messages that are open. */
class HistoryCheck {
  /** Start of the run, in ms since 1970; NaN when it is not known. */
  startMs = Number.NaN;
  /** Time of the last event, in ms since the start. */
  durationMs = 0;
  readonly name: string;
  readonly #expected: Expected;
  /** First problem of each kind: a forged history breaks one rule many times. */
  readonly #problems = new Map<string, string>();
  #count = 0;
  #isEnded = false;
  #isExploration = false;
  #hasService = false;
  #confirmed = 0;
  #sequence = 0;
  #lastInjection = 0;
  /** Upper bound of the messages and of the deliveries that are open: a forged history may leave all of them open. */
  readonly #maxOpen = limit('history-events');
  /**
   * Submitted messages of this installation that may still be confirmed or are, and that not all of their recipients
   * have consumed, by id. `served` is made at the first consumption.
   */
  readonly #unserved = new Map<string, { recipients: number; served?: Set<number> }>();
  readonly #unanswered = new Set<string>();
  /** Confirmed messages of this installation that are not consumed. */
  readonly #outstanding = new Set<string>();
  /** Recipients of the deliveries that are neither consumed nor refused, by sequence number. */
  readonly #open = new Map<number, readonly number[]>();
  /** Time of the first event of each injection that has no recovery yet. */
  readonly #injectedMs = new Map<number, number>();
  readonly #atRisk = new Set<number>();
  /** Nodes of this installation; undefined for a target without nodes. */
  #nodes: readonly string[] | undefined;

  constructor(name: string, expected: Expected) {
    this.name = name;
    this.#expected = expected;
  }

  add(event: HistoryEvent): void {
    this.#count += 1;
    const { atMs, kind } = event;
    if (this.#isEnded) this.#report('after-end', `${kind} after the end of the run`);
    if (atMs < this.durationMs)
      this.#report('order', `${kind} at ${atMs} ms, after an event at ${this.durationMs} ms`);
    if (this.#count === 1 && kind !== 'run-started')
      this.#report('start', `the first event is ${kind}, expected run-started`);
    this.durationMs = Math.max(this.durationMs, atMs);
    this.#check(event);
    if (Math.max(this.#unserved.size, this.#unanswered.size, this.#open.size) > this.#maxOpen)
      throw this.#tooManyOpen();
  }

  #tooManyOpen(): KitError {
    const what = beyond('history-events', 'messages or deliveries that are open at the same time');
    const text = `${this.name}:${this.#count}: there are ${what}`;
    return new KitError('bad-history', text, { cause: new LimitError(text) });
  }

  /** Returns the problems of the whole history, one line each. */
  end(): string[] {
    if (!this.#isEnded) this.#report('end', 'the run has no end');
    return [...this.#problems.values()];
  }

  #check(event: HistoryEvent): void {
    switch (event.kind) {
      case 'run-started':
        this.#started(event);
        break;
      case 'run-ended':
        this.#isEnded = true;
        break;
      case 'installed':
        // What an earlier installation confirmed is not at risk any more.
        this.#outstanding.clear();
        this.#unserved.clear();
        this.#nodes = event.nodes;
        break;
      case 'service-started':
        this.#hasService = true;
        break;
      case 'submitted':
        this.#submitted(event);
        break;
      case 'answered':
        this.#answered(event);
        break;
      case 'delivered':
        this.#delivered(event);
        break;
      case 'consumed':
        this.#consumed(event);
        break;
      case 'refused':
        if (!this.#open.delete(event.sequence))
          this.#report('refused', `delivery ${event.sequence} was refused and had not come`);
        break;
      case 'cluster-state':
        this.#harmed(event);
        break;
      case 'inspected':
        this.#checkNode(event.node, 'a report');
        break;
      case 'at-risk':
        this.#risked(event);
        break;
      case 'fault':
        this.#injected(event);
        break;
      case 'recovered':
        this.#lasted(event.injection, event.tookMs, event.atMs, 'recovery');
        break;
      case 'recovery-failed':
        this.#lasted(event.injection, event.waitedMs, event.atMs, 'failed recovery');
        break;
      case 'drained':
        if (event.waitedMs > event.atMs + MEASUREMENT_ERROR_MS)
          this.#report('drained', `a wait of ${event.waitedMs} ms ended at ${event.atMs} ms`);
        break;
      default:
        break;
    }
  }

  #started(event: Extract<HistoryEvent, { kind: 'run-started' }>): void {
    if (this.#count > 1) {
      this.#report('start', `event ${this.#count} starts the run again`);
      return;
    }
    const { facts, target, protocol } = this.#expected;
    const stated = { target, protocol, kitVersion: facts.kitVersion, seed: facts.seed } as const;
    for (const [key, value] of Object.entries(stated)) {
      const found = event[key as keyof typeof stated];
      if (found !== value) this.#report(key, `${key} is ${found}, and ${value} in the rest of the evidence`);
    }
    this.#isExploration = event.faults.includes('crash-states');
    if (ISO_TIME.test(event.startedAt)) this.startMs = Date.parse(event.startedAt);
    if (Number.isNaN(this.startMs)) this.#report('time', `'${event.startedAt}' is no time of a start`);
  }

  #submitted({
    id,
    digest,
    sizeBytes,
    recipients,
    atMs,
  }: Extract<HistoryEvent, { kind: 'submitted' }>): void {
    if (!this.#hasService)
      this.#report('service', `message ${id} was submitted before a service was started`);
    if (!DIGEST.test(digest))
      this.#report('digest', `message ${id} has the digest '${digest}', expected a SHA-256`);
    if (!(sizeBytes > 0)) this.#report('size', `message ${id} has ${sizeBytes} bytes`);
    if (this.#unanswered.has(id) || this.#unserved.has(id))
      this.#report('twice', `message ${id} was submitted again at ${atMs} ms`);
    this.#unanswered.add(id);
    this.#unserved.set(id, { recipients });
  }

  #answered({ id, outcome, node }: Extract<HistoryEvent, { kind: 'answered' }>): void {
    this.#checkNode(node, `the answer to message ${id}`);
    if (this.#nodes !== undefined && node === undefined && outcome === 'confirmed')
      this.#report('node', `message ${id} was confirmed by no node of a target with nodes`);
    if (!this.#unanswered.delete(id)) {
      this.#report('answered', `message ${id} was answered and not submitted before`);
      return;
    }
    if (outcome !== 'confirmed') {
      // Such a message is never at risk. A run of days may have very many.
      this.#unserved.delete(id);
      return;
    }
    this.#confirmed += 1;
    if (this.#unserved.has(id)) this.#outstanding.add(id);
  }

  #delivered({ sequence, id, recipients, digest, node }: Extract<HistoryEvent, { kind: 'delivered' }>): void {
    this.#checkNode(node, `delivery ${sequence}`);
    if (sequence !== this.#sequence + 1)
      this.#report('sequence', `delivery ${sequence} came after delivery ${this.#sequence}`);
    if (!DIGEST.test(digest)) this.#report('digest', `delivery ${sequence} has the digest '${digest}'`);
    if (!this.#hasService) this.#report('service', `message ${id} came before a service was started`);
    this.#sequence = Math.max(this.#sequence, sequence);
    this.#open.set(sequence, recipients);
  }

  #consumed({ sequence, id, how }: Extract<HistoryEvent, { kind: 'consumed' }>): void {
    const recipients = this.#open.get(sequence);
    if (recipients === undefined) {
      this.#report('consumed', `delivery ${sequence} was consumed and had not come`);
      return;
    }
    this.#open.delete(sequence);
    if (id === null || how === 'unanswered') return;
    const unserved = this.#unserved.get(id);
    if (unserved !== undefined) {
      unserved.served ??= new Set();
      for (const recipient of recipients) unserved.served.add(recipient);
      if (unserved.served.size < unserved.recipients) return;
    }
    this.#unserved.delete(id);
    this.#outstanding.delete(id);
  }

  #risked({
    injection,
    confirmedUndelivered,
    inFlight,
    inDelivery,
    atMs,
  }: Extract<HistoryEvent, { kind: 'at-risk' }>): void {
    // In an exploration, the cut may be anywhere in the run.
    const upper = this.#isExploration ? this.#confirmed : this.#outstanding.size;
    const counts = [
      [confirmedUndelivered, upper, 'confirmed and not delivered'],
      [inFlight, this.#unanswered.size, 'submitted and not answered'],
      [inDelivery, this.#sequence, 'delivered'],
    ] as const;
    for (const [stated, bound, what] of counts) {
      if (stated > bound)
        this.#report(
          `at-risk ${what}`,
          `${stated} messages at risk at injection ${injection}, and ${bound} were ${what}`,
        );
    }
    this.#atRisk.add(injection);
    if (!this.#injectedMs.has(injection)) this.#injectedMs.set(injection, atMs);
  }

  #harmed({
    injection,
    down,
    cut,
    promoted = [],
    atMs,
  }: Extract<HistoryEvent, { kind: 'cluster-state' }>): void {
    for (const node of [...down, ...cut.flat(), ...promoted])
      this.#checkNode(node, `the state of the cluster at injection ${injection}`);
    // The next injection is recorded as a fault only at its end.
    if (injection < this.#lastInjection)
      this.#report('injection', `injection ${injection} came after injection ${this.#lastInjection}`);
    if (!this.#injectedMs.has(injection)) this.#injectedMs.set(injection, atMs);
  }

  #checkNode(node: string | undefined, what: string): void {
    if (node === undefined || this.#nodes?.includes(node)) return;
    const known =
      this.#nodes === undefined ? 'the target has none' : `expected one of ${this.#nodes.join(', ')}`;
    this.#report('node', `${what} names the node ${node}; ${known}`);
  }

  #injected({ fault, injection, hit, scope, nodes, atMs }: Extract<HistoryEvent, { kind: 'fault' }>): void {
    for (const node of nodes ?? []) this.#checkNode(node, `${fault} ${injection}`);
    if (familyOf(fault, FAULT_NAMES) === undefined)
      this.#report('fault', `the fault ${fault}, which no kit makes`);
    if (injection < this.#lastInjection)
      this.#report('injection', `injection ${injection} came after injection ${this.#lastInjection}`);
    this.#lastInjection = Math.max(this.#lastInjection, injection);
    if (hit && scope !== 'none' && !this.#atRisk.has(injection))
      this.#report('hit', `${fault} hit at injection ${injection}, without a count of the messages at risk`);
    if (!this.#injectedMs.has(injection)) this.#injectedMs.set(injection, atMs);
  }

  #lasted(injection: number, tookMs: number, atMs: number, what: string): void {
    const sinceMs = this.#injectedMs.get(injection);
    if (sinceMs === undefined) {
      this.#report(what, `a ${what} of injection ${injection}, which was not made`);
      return;
    }
    if (tookMs > atMs - sinceMs + MEASUREMENT_ERROR_MS)
      this.#report(
        what,
        `a ${what} of ${tookMs} ms, ${Math.round(atMs - sinceMs)} ms after injection ${injection}`,
      );
  }

  #report(rule: string, what: string): void {
    if (!this.#problems.has(rule)) this.#problems.set(rule, `${this.name}:${this.#count}: ${what}`);
  }
}

function timeText(ms: number): string {
  return Number.isFinite(ms) && Math.abs(ms) < 8.64e15 ? new Date(ms).toISOString() : `${ms} ms`;
}
