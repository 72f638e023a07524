import type { Body } from '../record/body.js';

/**
 * What the queue said of a message. `confirmed`: it is on the disk. `rejected`: it is not in the queue and never
 * will be delivered. `indefinite`: the sync failed or timed out half way; it may or may not be there, so the
 * caller must answer neither yes nor no (a gateway closes the connection).
 */
export type EnqueueOutcome =
  | { outcome: 'confirmed'; numbers: bigint[] }
  | { outcome: 'rejected'; reason: 'no-space' | 'no-entry' | 'mutex-held' | 'too-large'; detail: string }
  | { outcome: 'indefinite'; detail: string };

/** A message locked for delivery by this worker; nobody else delivers it while this process lives. */
export interface LockedMessage {
  readonly pair: number;
  readonly entry: number;
  readonly number: bigint;
  readonly body: Body;
  /** Milliseconds since the epoch. */
  readonly queuedAtMs: number;
  /** How many deliveries were tried before. */
  readonly retryCount: number;
  /** Milliseconds since the epoch of the last try; 0 when there was none. */
  readonly lastRetryMs: number;
}

export interface TakeOptions {
  /** At most so many messages. */
  count: number;
  /** At most so many bytes of message data in all (one message may be larger). */
  bytes: number;
  /** Given the number of tries so far and the time of the last: may it be tried now? */
  due: (retryCount: number, lastRetryMs: number) => boolean;
}

/** The queue as a worker sees it. One process opens a queue once. */
export interface Queue {
  /**
   * Stores the bodies, all or none of them, and resolves when they are on the disk (or not in the queue). Calls
   * made in the same turn of the event loop share one run of space and one sync request.
   */
  enqueue(bodies: readonly Body[]): Promise<EnqueueOutcome>;
  /** Locks messages that are due, in queue order, across all pairs; empty when there are none. */
  take(options: TakeOptions): LockedMessage[];
  /** They were delivered: removes them. Never delivered again, except after a power cut before the index sync. */
  consume(messages: readonly LockedMessage[]): void;
  /** They were not delivered: unlocks them; `tried` counts one more try, now. */
  unlock(messages: readonly LockedMessage[], tried: boolean): void;
  /**
   * Moves a message to the dead-letter queue: stored there and synced first, removed here second. Resolves to
   * false when the dead-letter queue has no room; the message then stays where it is, unlocked, tried once more.
   */
  bury(message: LockedMessage, reason: string): Promise<boolean>;
  /** Calls back (at most once a turn) when messages may have come in, from this process or another. */
  onArrival(listener: () => void): void;
  stats(): QueueStats;
  /** Unlocks what is still locked, syncs the index, gives the worker slot back. */
  close(): Promise<void>;
}

export interface QueueStats {
  live: number;
  locked: number;
  freeBytes: number;
  usedBytes: number;
  dead: number;
}
