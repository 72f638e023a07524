import { randomUUID } from 'node:crypto';
import type { MessageStore, TakenMessage } from './store.js';

/** Number of leases that the front remembers after their consumption, so that a repeated request gets the same answer. */
const REMEMBERED = 10_000;

/**
 * The state of a lease. `held`: the receiver may consume the message. `consuming`: the store commits the consumption.
 * `unknown`: the store failed while it committed, so the message may be consumed. Only the store knows, after its restart.
 */
export interface Lease {
  /** What the receiver calls it. It cannot be guessed: a receiver can delete no lease of another one. */
  readonly id: string;
  readonly message: TakenMessage;
  state: 'held' | 'consuming' | 'unknown' | 'ended';
  /** Whether its time ended while the store was committing. */
  isOverdue: boolean;
  timer: NodeJS.Timeout;
  /** Resolves when the commit in progress has ended. */
  settled: Promise<void>;
  settle: () => void;
}

/** Why a lease cannot be consumed. */
export type LeaseProblem = 'ended' | 'consumed' | 'consuming' | 'unknown';

/**
 * The messages in delivery. A lease ends when its message is consumed, after its time, or when its answer could not be
 * delivered. In the last two cases the message is given back to the store. Times are those of Node's timers, which are
 * monotonic: a jump of the wall clock ends no lease.
 */
export class Leases {
  readonly #store: MessageStore;
  readonly #leaseMs: number;
  readonly #limit: number;
  readonly #onEnd: () => void;
  readonly #leases = new Map<string, Lease>();
  readonly #consumed = new Set<string>();
  #isStopped = false;

  /** @param onEnd called whenever there is room for one more lease */
  constructor(store: MessageStore, limits: { leaseMs: number; maxLeases: number }, onEnd: () => void) {
    this.#store = store;
    this.#leaseMs = limits.leaseMs;
    this.#limit = limits.maxLeases;
    this.#onEnd = onEnd;
  }

  get count(): number {
    return this.#leases.size;
  }

  get isFull(): boolean {
    return this.#leases.size >= this.#limit;
  }

  /** Starts the lease of a message that was taken for a receiver. */
  grant(message: TakenMessage): Lease {
    const lease: Lease = {
      id: randomUUID(),
      message,
      state: 'held',
      isOverdue: false,
      timer: setTimeout(() => this.#expire(lease), this.#leaseMs),
      settled: Promise.resolve(),
      settle: () => undefined,
    };
    this.#leases.set(lease.id, lease);
    return lease;
  }

  /** Ends a lease whose answer did not reach its receiver. Nothing happens when it has ended, or is being consumed. */
  giveBack(lease: Lease): void {
    if (lease.state !== 'held') return;
    this.#end(lease);
    this.#store.putBack(lease.message);
  }

  /** Returns the lease, or why it cannot be consumed. */
  find(id: string): Lease | LeaseProblem {
    const lease = this.#leases.get(id);
    if (lease === undefined) return this.#consumed.has(id) ? 'consumed' : 'ended';
    return lease.state === 'unknown' ? 'unknown' : lease;
  }

  /** Keeps held leases until their commit has ended: their time does not end them. */
  begin(leases: readonly Lease[]): void {
    for (const lease of leases) {
      lease.state = 'consuming';
      lease.settled = new Promise((resolve) => {
        lease.settle = resolve;
      });
    }
  }

  /** Ends leases whose messages are consumed. */
  committed(leases: readonly Lease[]): void {
    for (const lease of leases) {
      this.#end(lease);
      this.#consumed.add(lease.id);
      if (this.#consumed.size > REMEMBERED)
        for (const oldest of this.#consumed) {
          this.#consumed.delete(oldest);
          break;
        }
      lease.settle();
    }
  }

  /** Handles a rejection: the store has changed nothing. The leases go on, or end now if their time has passed. */
  rejected(leases: readonly Lease[]): void {
    for (const lease of leases) {
      lease.state = 'held';
      if (lease.isOverdue || this.#isStopped) this.giveBack(lease);
      lease.settle();
    }
  }

  /** Handles an unknown outcome. The messages may be consumed, so they are not given back: they could be delivered twice. */
  unknown(leases: readonly Lease[]): void {
    for (const lease of leases) {
      clearTimeout(lease.timer);
      lease.state = 'unknown';
      lease.settle();
    }
  }

  /** Gives all held messages back. A message that is being consumed is given back if the store rejects the commit. */
  stop(): void {
    this.#isStopped = true;
    for (const lease of [...this.#leases.values()]) {
      clearTimeout(lease.timer);
      this.giveBack(lease);
    }
  }

  #expire(lease: Lease): void {
    lease.isOverdue = true;
    this.giveBack(lease);
  }

  #end(lease: Lease): void {
    clearTimeout(lease.timer);
    lease.state = 'ended';
    this.#leases.delete(lease.id);
    this.#onEnd();
  }
}
