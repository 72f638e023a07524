import type { Recorder } from '../../../conformance/history/recorder.js';
import { describeDifference } from '../../../conformance/protocols/difference.js';
import { messageIdsIn } from '../../../conformance/protocols/encoded-mark.js';
import { type Message, markOf } from '../../../conformance/protocols/message.js';
import type { Answer, Receipts, ReceivedMessage } from '../../../conformance/protocols/protocol.js';
import type { ChangedDelivery } from '../changed-messages.js';

/** State of a submitted message. It is small, because a run has many messages. */
interface Entry {
  digest: string;
  state: 'in-flight' | 'confirmed' | 'rejected' | 'indefinite';
  /** Number of recipients. */
  recipients: number;
  /** Makes the bytes of the message again. The ledger does not keep them: a run has many messages. */
  compose: () => Buffer;
  /** True when every recipient has accepted the message at least once. */
  consumed: boolean;
}

/** Current numbers of messages in a run. */
export interface Tally {
  submitted: number;
  confirmed: number;
  rejected: number;
  indefinite: number;
  delivered: number;
  /** Messages that are confirmed and not consumed. */
  outstanding: number;
  /** Messages that are submitted and not answered. */
  inFlight: number;
  /** Bytes of the messages that are in flight, or confirmed and not consumed. */
  backlogBytes: number;
}

/**
 * The current state of a run: which messages are awaited, and which are at risk. Checkers judge the history.
 * The ledger only summarises it, so that the round need not read the whole history at each step.
 */
export class Ledger {
  readonly tally: Tally = {
    submitted: 0,
    confirmed: 0,
    rejected: 0,
    indefinite: 0,
    delivered: 0,
    outstanding: 0,
    inFlight: 0,
    backlogBytes: 0,
  };
  /**
   * True when a delivered message was never submitted: the run can stop. It goes on after a changed message, so that
   * durability is measured too.
   */
  wrongDelivery = false;
  /** Called with both versions of a message that was delivered changed. */
  onChanged: (change: ChangedDelivery) => void = () => {};
  /** Moment of the last delivery or answer, in ms of `performance.now()`. */
  lastActivityMs = performance.now();
  /**
   * Longest time between the confirmation and the consumption of a message, in milliseconds, whatever delayed
   * it.
   */
  maxWaitMs = 0;
  readonly #run: string;
  readonly #recorder: Recorder;
  readonly #entries = new Map<string, Entry>();
  readonly #sizes = new Map<string, number>();
  /**
   * Confirmed and unconsumed messages with the moment (`performance.now()`) of the confirmation, oldest
   * first.
   */
  readonly #outstanding = new Map<string, number>();
  /**
   * Ids of messages that the target need not deliver again, unless it does: it did not answer their consumption,
   * or a receiver refused them permanently.
   */
  readonly #excused = new Set<string>();
  /** Recipients of deliveries that have no end yet, by sequence number; only of messages with several recipients. */
  readonly #recipientsOf = new Map<number, readonly number[]>();
  /** Recipients that have accepted a message, by message id; only of unconsumed messages with several recipients. */
  readonly #served = new Map<string, Set<number>>();
  readonly #listeners = new Set<() => void>();
  /** Numbers of confirmed messages by the node that has confirmed them. */
  readonly #confirmedBy = new Map<string, number>();

  constructor(run: string, recorder: Recorder) {
    this.#run = run;
    this.#recorder = recorder;
  }

  /**
   * Records that a producer submits a message; must be called before the target gets it.
   * @param compose makes the bytes of the message again. Default: returns those of `message`, which stay in memory.
   */
  submitted(message: Message, producer: number, compose: () => Buffer = () => message.bytes): void {
    const { id, shape, digest, recipients, bytes } = message;
    this.#recorder.record({
      kind: 'submitted',
      id,
      producer,
      sizeBytes: bytes.length,
      digest,
      recipients: recipients.length,
      shape,
    });
    this.#entries.set(id, {
      ...{ digest, recipients: recipients.length, compose },
      ...{ state: 'in-flight', consumed: false },
    });
    this.#sizes.set(id, bytes.length);
    this.tally.submitted++;
    this.tally.inFlight++;
    this.tally.backlogBytes += bytes.length;
  }

  /**
   * Records the target's answer to a message.
   * @param node node to which the message was submitted; undefined for a target without `nodes`.
   */
  answered(id: string, { outcome, detail }: Answer, node?: string): void {
    this.#recorder.record({
      kind: 'answered',
      ...{ id, outcome, detail },
      ...(node === undefined ? {} : { node }),
    });
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    entry.state = outcome;
    this.tally.inFlight--;
    this.tally[outcome]++;
    if (outcome === 'confirmed' && node !== undefined)
      this.#confirmedBy.set(node, this.confirmedBy(node) + 1);
    if (outcome === 'confirmed' && !entry.consumed) {
      this.tally.outstanding++;
      this.#outstanding.set(id, performance.now());
    } else this.#forgetSize(id);
    this.#notifyListeners();
  }

  /** Returns the number of messages that a node has confirmed. */
  confirmedBy(node: string): number {
    return this.#confirmedBy.get(node) ?? 0;
  }

  /** Makes a `Receipts` that updates the ledger with each report of a receiver and passes it on to `next`. */
  trackReceipts(next: Receipts): Receipts {
    return {
      delivered: (what) => {
        const entry = what.id === null ? undefined : this.#entries.get(what.id);
        const isChanged = entry !== undefined && entry.digest !== what.digest;
        if (entry === undefined) this.wrongDelivery = true;
        this.tally.delivered++;
        const sequence = isChanged ? this.#deliveredChanged(next, what, entry) : next.delivered(what);
        if (what.id !== null) this.#excused.delete(what.id);
        if (entry !== undefined && entry.recipients > 1) this.#recipientsOf.set(sequence, what.recipients);
        this.#notifyListeners();
        return sequence;
      },
      consumed: (sequence, id, how) => {
        next.consumed(sequence, id, how);
        const recipients = this.#recipientsOf.get(sequence);
        this.#recipientsOf.delete(sequence);
        if (id !== null && how === 'unanswered') this.#excused.add(id);
        else if (id !== null && this.#isServed(id, recipients)) {
          const sinceMs = this.#outstanding.get(id) ?? performance.now();
          this.maxWaitMs = Math.max(this.maxWaitMs, performance.now() - sinceMs);
          this.#markConsumed(id);
        }
        this.#notifyListeners();
      },
      refused: (sequence, id, permanent, detail) => {
        next.refused(sequence, id, permanent, detail);
        this.#recipientsOf.delete(sequence);
        if (id !== null && permanent) this.#excused.add(id);
        this.#notifyListeners();
      },
      settled: (sequences, how) => next.settled(sequences, how),
    };
  }

  /**
   * Waits until `condition` holds, which is checked at every change; ends with `timeout` at `timeoutMs` or an
   * abort.
   */
  async waitUntil(
    condition: () => boolean,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<'reached' | 'timeout'> {
    if (condition()) return 'reached';
    if (signal.aborted) return 'timeout';
    return new Promise((resolve) => {
      const finish = (outcome: 'reached' | 'timeout') => {
        clearTimeout(timer);
        this.#listeners.delete(check);
        signal.removeEventListener('abort', giveUp);
        resolve(outcome);
      };
      const check = () => {
        if (condition()) finish('reached');
      };
      const giveUp = () => finish('timeout');
      const timer = setTimeout(giveUp, timeoutMs);
      this.#listeners.add(check);
      signal.addEventListener('abort', giveUp);
    });
  }

  /** Waits for `count` more messages of a kind, or for a wrong delivery; otherwise ends like `waitUntil`. */
  async waitForMore(
    kind: 'confirmed' | 'rejected' | 'delivered',
    count: number,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<'reached' | 'timeout'> {
    const goal = this.tally[kind] + count;
    return this.waitUntil(() => this.tally[kind] >= goal || this.wrongDelivery, timeoutMs, signal);
  }

  /** Returns true if a message with this id was submitted. */
  has(id: string): boolean {
    return this.#entries.has(id);
  }

  /** Number of messages that are confirmed and not consumed; see `DrainView`. */
  get outstanding(): number {
    return this.tally.outstanding;
  }

  /** Number of outstanding messages that the target must still deliver. */
  get awaited(): number {
    let excused = 0;
    for (const id of this.#excused) if (this.#outstanding.has(id)) excused++;
    return this.tally.outstanding - excused;
  }

  /**
   * Returns when the n-th oldest (from 1) of the outstanding messages was confirmed, in ms of
   * `performance.now()`; infinity when there are fewer.
   */
  outstandingSinceMs(nth: number): number {
    let remaining = nth;
    for (const sinceMs of this.#outstanding.values()) if (--remaining === 0) return sinceMs;
    return Number.POSITIVE_INFINITY;
  }

  /**
   * Returns the marks of confirmed and unconsumed messages by message id: at most `maxMarks`, latest first.
   */
  storedMarks(maxMarks: number): Map<string, Buffer> {
    const marks = new Map<string, Buffer>();
    for (const [id, entry] of [...this.#entries].reverse()) {
      if (marks.size === maxMarks) break;
      if (entry.state !== 'confirmed' || entry.consumed) continue;
      marks.set(id, Buffer.concat([markOf(this.#run, id), Buffer.from(entry.digest)]));
    }
    return marks;
  }

  /** Returns the ids of the outstanding messages whose bytes are in a part of a file, plain or encoded. */
  outstandingIn(bytes: Buffer): string[] {
    return [...messageIdsIn(bytes, this.#run)].filter((id) => this.#outstanding.has(id));
  }

  /** Removes messages from the outstanding ones, because a fault has damaged them on purpose. */
  stopExpecting(ids: readonly string[]): void {
    for (const id of ids) this.#markConsumed(id);
  }

  /** Reports a changed message with the difference, if its bytes are known. Returns the sequence number. */
  #deliveredChanged(next: Receipts, what: ReceivedMessage, { compose }: Entry): number {
    const { id, bytes } = what;
    if (id === null || bytes === undefined) return next.delivered(what);
    const submitted = compose();
    const difference = describeDifference(submitted, bytes);
    const sequence = next.delivered({ ...what, ...(difference === undefined ? {} : { difference }) });
    this.onChanged({ id, sequence, submitted, delivered: bytes });
    return sequence;
  }

  /** Notes the recipients that accepted a delivery. Returns true when every recipient of the message has accepted it. */
  #isServed(id: string, recipients: readonly number[] | undefined): boolean {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.consumed || recipients === undefined) return true;
    const served = this.#served.get(id) ?? new Set<number>();
    this.#served.set(id, served);
    for (const recipient of recipients) served.add(recipient);
    return served.size >= entry.recipients;
  }

  #markConsumed(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.consumed) return;
    entry.consumed = true;
    this.#excused.delete(id);
    this.#served.delete(id);
    this.#outstanding.delete(id);
    if (entry.state === 'confirmed') this.tally.outstanding--;
    if (entry.state !== 'in-flight') this.#forgetSize(id);
  }

  #forgetSize(id: string): void {
    this.tally.backlogBytes -= this.#sizes.get(id) ?? 0;
    this.#sizes.delete(id);
  }

  #notifyListeners(): void {
    this.lastActivityMs = performance.now();
    for (const listener of [...this.#listeners]) listener();
  }
}
