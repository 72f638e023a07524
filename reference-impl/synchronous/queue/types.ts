import type { Body } from '../record/body.js';

/**
 * Outcome of one `enqueue` call, for all its messages.
 *
 * - `confirmed`: the messages are on the disk.
 * - `rejected`: the messages are not in the queue and are never delivered.
 * - `indefinite`: the sync failed or timed out, so the messages may or may not be on the disk. The caller
 *   must answer neither yes nor no: a gateway closes the connection.
 */
export type EnqueueOutcome =
  | { outcome: 'confirmed'; numbers: bigint[] }
  | { outcome: 'rejected'; reason: 'no-space' | 'no-entry' | 'mutex-held' | 'too-large'; detail: string }
  | { outcome: 'indefinite'; detail: string };

/**
 * A message that this worker has locked for delivery. No other process delivers it while this one is alive.
 */
export interface LockedMessage {
  /** Position of the pair in the settings. */
  readonly pair: number;
  /** Number of the index entry. */
  readonly entry: number;
  /** Message number, which is never used twice. */
  readonly number: bigint;
  readonly body: Body;
  /** Time of the enqueue, in milliseconds since the epoch. */
  readonly queuedAtMs: number;
  /** Number of delivery attempts that have failed so far; 0 before the first attempt. */
  readonly retryCount: number;
  /** Time of the last attempt, in milliseconds since the epoch; 0 before the first attempt. */
  readonly lastRetryMs: number;
}

/** Limits of one `take` call. */
export interface TakeOptions {
  /** Largest number of messages that the call takes. */
  count: number;
  /**
   * Largest sum of the sizes of the records that the call takes, in bytes. The first message of a pair is
   * taken even if it is larger.
   */
  bytes: number;
  /**
   * Returns whether a message may be tried now. Gets its number of attempts and the time of the last attempt,
   * in milliseconds since the epoch.
   */
  due: (retryCount: number, lastRetryMs: number) => boolean;
}

/** The queue as a worker sees it. A process opens a queue at most once. */
export interface Queue {
  /**
   * Stores all bodies or none, and resolves with the outcome as soon as it is known. Calls in the same turn
   * of the event loop share one contiguous range of the data file, where there is one, and one sync request.
   * @throws QueueError `bad-record` when a body cannot be encoded.
   */
  enqueue(bodies: readonly Body[]): Promise<EnqueueOutcome>;
  /**
   * Locks messages that are due, in queue order, across all pairs. Returns an empty list if no message is
   * due.
   */
  take(options: TakeOptions): LockedMessage[];
  /**
   * Removes messages that were delivered. They are not delivered again, except after a power cut that comes
   * before the next sync of the index.
   */
  consume(messages: readonly LockedMessage[]): void;
  /**
   * Unlocks messages that were not delivered.
   * @param tried whether to count one more attempt, at the current time.
   */
  unlock(messages: readonly LockedMessage[], tried: boolean): void;
  /**
   * Moves a message to the dead-letter queue. It stores and syncs the message there before it removes the
   * message from this queue, so a crash in between cannot lose it. Resolves to false if the dead-letter queue
   * does not confirm it, for example because it is full. The message then stays in this queue, unlocked, with
   * one more attempt counted.
   */
  bury(message: LockedMessage, reason: string): Promise<boolean>;
  /**
   * Calls the listener when messages may be available, from this process or another, at most once per turn of
   * the event loop.
   */
  onArrival(listener: () => void): void;
  /**
   * Counts messages and bytes. @throws QueueError `mutex-held` when another process holds the mutex for too
   * long.
   */
  stats(): QueueStats;
  /**
   * Waits for the running enqueue calls, syncs the index, and gives the worker slot back. Messages that are
   * still locked become free for other workers, because the slot of their lock has no owner any more.
   */
  close(): Promise<void>;
}

/** Counters of the queue, summed over its pairs. */
export interface QueueStats {
  /** Messages in the queue, including those that are being stored. */
  live: number;
  /** Messages in the queue that a worker has locked, for storing or for delivery. */
  locked: number;
  /** Free bytes of the data files. */
  freeBytes: number;
  /** Bytes of the data files that records use. */
  usedBytes: number;
  /** Messages in the dead-letter queue. */
  dead: number;
}
