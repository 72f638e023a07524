import { assert } from '../../common/platform/errors.js';
import type { Kernel } from '../../common/platform/kernel.js';

/** Figures of all locks of one server. */
export interface LockTimes {
  /** How often a queue was locked. */
  count: number;
  /** Time for which a queue was locked, summed over all queues, in milliseconds. */
  lockedMs: number;
}

/**
 * The lock of one queue. It is held while committed lists are spliced into the queue and while references to its contents
 * are copied, and for nothing else: staging, logging, encoding and writing work on an unlocked queue (claim 1, "selectively
 * locking").
 */
export class QueueLock {
  readonly #kernel: Pick<Kernel, 'monotonicMs'>;
  readonly #times: LockTimes;
  #isHeld = false;

  constructor(kernel: Pick<Kernel, 'monotonicMs'>, times: LockTimes) {
    this.#kernel = kernel;
    this.#times = times;
  }

  /** Runs `work` with the lock held. It must not wait for anything. */
  hold<T>(work: () => T): T {
    assert(!this.#isHeld, 'a queue is locked once at a time');
    this.#isHeld = true;
    const sinceMs = this.#kernel.monotonicMs();
    try {
      return work();
    } finally {
      this.#isHeld = false;
      this.#times.count += 1;
      this.#times.lockedMs += this.#kernel.monotonicMs() - sinceMs;
    }
  }
}
