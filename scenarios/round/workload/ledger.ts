import type { Recorder } from '../../../conformance/history/recorder.js';
import { type Message, markOf } from '../../../conformance/protocols/message.js';
import type { Answer, Receipts } from '../../../conformance/protocols/protocol.js';

/** What is known of a message that was submitted; kept small, since a run has many. */
interface Entry {
  digest: string;
  state: 'in-flight' | 'confirmed' | 'rejected' | 'indefinite';
  /** Accepted by the receiver at least once. */
  consumed: boolean;
}

/** Counts of a run as it stands. */
export interface Tally {
  submitted: number;
  confirmed: number;
  rejected: number;
  indefinite: number;
  delivered: number;
  /** Confirmed and not consumed. */
  outstanding: number;
  /** Submitted and not answered. */
  inFlight: number;
  /** Bytes that were confirmed and not consumed, and bytes in flight. */
  backlogBytes: number;
}

/**
 * The run as the kit knows it while it goes on: who waits for what, and what is at stake. The history is the truth that
 * checkers see; this is only its state, so that the driver need not read the whole history at each step.
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
  /** Something was delivered that was never submitted, or not as it was submitted: the run can stop. */
  wrongDelivery = false;
  /** When the history last moved (a delivery, an answer), in ms of `performance.now()`. */
  lastActivityMs = performance.now();
  /** The longest that a message took from its confirmation until it was consumed, whatever held it up. */
  maxWaitMs = 0;
  readonly #run: string;
  readonly #recorder: Recorder;
  readonly #entries = new Map<string, Entry>();
  readonly #sizes = new Map<string, number>();
  /** Confirmed and not consumed, with the moment (`performance.now()`) of the confirmation; the oldest first. */
  readonly #outstanding = new Map<string, number>();
  readonly #listeners = new Set<() => void>();

  constructor(run: string, recorder: Recorder) {
    this.#run = run;
    this.#recorder = recorder;
  }

  submitted(message: Message, producer: number): void {
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
    this.#entries.set(id, { digest, state: 'in-flight', consumed: false });
    this.#sizes.set(id, bytes.length);
    this.tally.submitted++;
    this.tally.inFlight++;
    this.tally.backlogBytes += bytes.length;
  }

  answered(id: string, { outcome, detail }: Answer): void {
    this.#recorder.record({ kind: 'answered', id, outcome, detail });
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    entry.state = outcome;
    this.tally.inFlight--;
    this.tally[outcome]++;
    if (outcome === 'confirmed' && !entry.consumed) {
      this.tally.outstanding++;
      this.#outstanding.set(id, performance.now());
    } else this.#forgetSize(id);
    this.#notifyListeners();
  }

  /** Receipts that go on to `next` and are noted here. */
  trackReceipts(next: Receipts): Receipts {
    return {
      delivered: (what) => {
        const entry = what.id === null ? undefined : this.#entries.get(what.id);
        if (entry?.digest !== what.digest) this.wrongDelivery = true;
        this.tally.delivered++;
        const sequence = next.delivered(what);
        this.#notifyListeners();
        return sequence;
      },
      consumed: (sequence, id, how) => {
        next.consumed(sequence, id, how);
        if (id !== null && how !== 'unanswered') {
          const sinceMs = this.#outstanding.get(id) ?? performance.now();
          this.maxWaitMs = Math.max(this.maxWaitMs, performance.now() - sinceMs);
          this.#markConsumed(id);
        }
        this.#notifyListeners();
      },
      refused: (sequence, id, permanent, detail) => {
        next.refused(sequence, id, permanent, detail);
        this.#notifyListeners();
      },
      settled: (sequences, how) => next.settled(sequences, how),
    };
  }

  /** Resolves to `reached` when `condition` holds, looked at whenever something moves; else at `timeoutMs` or abort. */
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

  /** Resolves after so many more of a kind, or when something wrong was delivered; else as `when`. */
  async waitForMore(
    kind: 'confirmed' | 'rejected' | 'delivered',
    count: number,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<'reached' | 'timeout'> {
    const goal = this.tally[kind] + count;
    return this.waitUntil(() => this.tally[kind] >= goal || this.wrongDelivery, timeoutMs, signal);
  }

  /** When the n-th oldest of the messages was confirmed that are not consumed, in ms of `performance.now()`. */
  outstandingSinceMs(nth: number): number {
    let remaining = nth;
    for (const sinceMs of this.#outstanding.values()) if (--remaining === 0) return sinceMs;
    return Number.POSITIVE_INFINITY;
  }

  /** Marks of the messages that are confirmed and not consumed, at most `most` of them, the latest first. */
  storedMarks(maxMarks: number): Map<string, Buffer> {
    const marks = new Map<string, Buffer>();
    for (const [id, entry] of [...this.#entries].reverse()) {
      if (marks.size === maxMarks) break;
      if (entry.state !== 'confirmed' || entry.consumed) continue;
      marks.set(id, Buffer.concat([markOf(this.#run, id), Buffer.from(entry.digest)]));
    }
    return marks;
  }

  /** These were damaged on purpose: nobody waits for them. */
  stopExpecting(ids: readonly string[]): void {
    for (const id of ids) this.#markConsumed(id);
  }

  #markConsumed(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.consumed) return;
    entry.consumed = true;
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
