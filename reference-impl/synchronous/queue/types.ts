import type { Body } from '../record/body.js';
import type { DeliveryFailure } from './dead-note.js';

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
  /** Identity of the pair's data file. It stays with the file, wherever the settings name it. */
  readonly queueId: string;
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
  /** Time of the first attempt, in milliseconds since the epoch; 0 before it. */
  readonly firstRetryMs: number;
  /** Number of attempts to which the next hop answered for this message. The others failed with the connection. */
  readonly answeredCount: number;
}

/**
 * How a delivery attempt ended. The worker unlocks the message after it.
 *
 * - `none`: there was no attempt.
 * - `failed`: the connection failed, or the next hop is down. It says nothing about the message.
 * - `answered`: the next hop answered for this message.
 * - `parked`: the message belongs in the dead-letter queue, which has no room.
 */
export type Attempt = 'none' | 'failed' | 'answered' | 'parked';

/**
 * Result of `Queue.bury`.
 *
 * - `buried`: the message is in the dead-letter queue and no longer in this queue.
 * - `full`: the dead-letter queue has no room. The message is still locked.
 * - `failed`: the message could not be stored there now. It is still locked.
 */
export type BuryOutcome = 'buried' | 'full' | 'failed';

/** State of the notice to the sender of a dead letter. */
export type NoticeState = keyof typeof NOTICE;

/**
 * Values of the notice state in the index of the dead-letter queue, in the word `ENTRY.retryCount`. No delivery
 * attempt is made from that queue, so the word is free there. A restore keeps it.
 */
export const NOTICE = {
  /** The notice must still be sent. */
  due: 0,
  /** The notice was stored in the main queue. */
  sent: 1,
  /** No notice is sent: there is no sender, no route, or notices are off. */
  none: 2,
  /** The index was lost, so it is not known whether a notice was sent. None is sent. */
  unknown: 3,
} as const;

/** Messages in the main queue that the dead-letter queue had no room for. */
export interface ParkedUsage {
  messages: number;
  /** Bytes of the data files that they use. */
  bytes: number;
  /** Whether no more messages should be parked, because they use the share of the queue that is set for them. */
  isShareFull: boolean;
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
   * Returns whether a message may be tried now. Gets its number of attempts, the time of the last attempt,
   * in milliseconds since the epoch, and the message number.
   */
  due: (retryCount: number, lastRetryMs: number, number: number) => boolean;
}

/** The queue as a worker sees it. A process opens a queue at most once. */
export interface Queue {
  /**
   * Stores all bodies or none, and resolves with the outcome as soon as it is known. Calls in the same turn
   * of the event loop share one contiguous range of the data file, where there is one, and one sync request.
   * @param use `inbound`: new mail, which leaves the reserve of the queue free. `internal`: mail that replaces
   * other mail of the queue, such as a notice, and may use the reserve. Without the reserve a full queue could
   * never become empty again.
   * @throws QueueError `bad-record` when a body cannot be encoded.
   */
  enqueue(bodies: readonly Body[], use?: 'inbound' | 'internal'): Promise<EnqueueOutcome>;
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
   * Unlocks messages that were not delivered. Counts one more attempt at the current time, except for `none`.
   */
  unlock(messages: readonly LockedMessage[], attempt: Attempt): void;
  /**
   * Moves a message to the dead-letter queue. It stores and syncs the message there before it removes the
   * message from this queue, so a crash in between cannot lose it. A message that is there already, byte for byte,
   * because of such a crash, is not stored a second time. If the result is not `buried`, the message stays locked, and the
   * caller unlocks it.
   */
  bury(message: LockedMessage, failure: DeliveryFailure): Promise<BuryOutcome>;
  /** Counts the parked messages. The numbers may be some 100 ms old. */
  parked(): ParkedUsage;
  /** Locks up to `count` dead letters for which a notice is due. Their bodies have notes. */
  takeUnnoticed(count: number): LockedMessage[];
  /**
   * Unlocks dead letters of `takeUnnoticed` and stores what was done for them. `due` leaves the state as it is.
   */
  noticed(letters: readonly LockedMessage[], state: NoticeState): void;
  /** Writes the index of the dead-letter queue to the disk. A failure is logged. */
  syncDead(): Promise<void>;
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
