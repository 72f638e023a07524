import type { LockOwners } from '../index/entry-lock.js';
import { ENTRY, FIELD, NONE, STATUS } from '../index/layout.js';
import { release } from '../index/lists.js';
import { isConsumed } from '../index/marks.js';
import { eraseRecord } from '../record/record.js';
import type { Pair } from './pair.js';
import type { TakeOptions } from './types.js';

/** An index entry that a worker has locked, to deliver its message. */
export interface Claimed {
  entry: number;
  /** Byte offset of the record in the data file. */
  offset: number;
  /** Message number. */
  number: number;
  sizeBytes: number;
  retryCount: number;
  /** Milliseconds since the epoch; 0 before the first attempt. */
  lastRetryMs: number;
}

/**
 * Largest number of entries that one walk visits. It bounds the time for which the mutex is held when many
 * messages wait for their next attempt.
 */
const MAX_VISITED_ENTRIES = 2048;

/** Result of one walk through the list of the index entries in use. */
export interface ClaimResult {
  claimed: Claimed[];
  /** Entry at which the next walk starts. */
  cursor: number;
  /** Number of entries that the walk visited. */
  visited: number;
  /** Number of entries on the list when the walk started. */
  inUse: number;
}

/**
 * Takes messages in queue order (patent [0035]): locks those that are ready, due and unlocked. The walk through
 * the list of messages starts at `cursor` and goes around the list at most once. It also cleans up after dead
 * workers:
 *
 * - It ignores their locks.
 * - It drops a message that they reserved and did not confirm.
 * - It releases a message that they marked as consumed.
 *
 * @param lock the value by which this worker locks index entries (entry-lock.ts).
 * @throws QueueError `mutex-held` when another process holds the mutex for too long.
 */
export function claimMessages(
  pair: Pair,
  owners: LockOwners,
  lock: number,
  cursor: number,
  options: TakeOptions,
): ClaimResult {
  return pair.withMutex(() => {
    const { image } = pair;
    const claimed: Claimed[] = [];
    let entry = startEntry(pair, cursor);
    let bytes = 0;
    const inUse = image.get(FIELD.inUse);
    const steps = Math.min(inUse, MAX_VISITED_ENTRIES);
    let visited = 0;
    for (; visited < steps && entry !== NONE && claimed.length < options.count; visited += 1) {
      const at = image.entryWord(entry);
      const following = image.get(at + ENTRY.next);
      if (!cleanUpLeftovers(pair, owners, entry) && isDeliverable(pair, owners, entry, options)) {
        const sizeBytes = image.get(at + ENTRY.length);
        if (claimed.length > 0 && bytes + sizeBytes > options.bytes) break;
        bytes += sizeBytes;
        image.put(at + ENTRY.lock, lock);
        claimed.push(claimOf(pair, entry));
      }
      entry = following === NONE ? image.get(FIELD.head) : following;
    }
    return { claimed, cursor: entry, visited, inUse };
  });
}

/**
 * Returns the index entry at which a walk starts: `cursor`, where the last walk ended, or the head of the list
 * if the entry `cursor` was freed since then. The entry may also have been used again since then. That does no
 * harm, because a walk can start at any entry in use.
 */
function startEntry({ image }: Pair, cursor: number): number {
  const known = cursor !== NONE && image.get(image.entryWord(cursor) + ENTRY.status) !== STATUS.free;
  return known ? cursor : image.get(FIELD.head);
}

/**
 * Releases an entry of a dead worker if its message was never confirmed or is marked as consumed.
 * @returns whether the entry was released.
 */
function cleanUpLeftovers(pair: Pair, owners: LockOwners, entry: number): boolean {
  const { image, key, data } = pair;
  const at = image.entryWord(entry);
  const lock = image.get(at + ENTRY.lock);
  if (lock === 0 || owners.isAlive(lock)) return false;
  const offset = image.getWide(at + ENTRY.offset);
  const number = image.getWide(at + ENTRY.number);
  if (image.get(at + ENTRY.status) === STATUS.reserved) eraseRecord(data, offset);
  else if (!isConsumed(image, key, offset, number)) return false;
  release(image, entry);
  return true;
}

function isDeliverable({ image }: Pair, owners: LockOwners, entry: number, options: TakeOptions): boolean {
  const at = image.entryWord(entry);
  if (image.get(at + ENTRY.status) !== STATUS.ready) return false;
  if (owners.isAlive(image.get(at + ENTRY.lock))) return false;
  return options.due(
    image.get(at + ENTRY.retryCount),
    image.getWide(at + ENTRY.lastRetry),
    image.getWide(at + ENTRY.number),
  );
}

function claimOf({ image }: Pair, entry: number): Claimed {
  const at = image.entryWord(entry);
  return {
    entry,
    offset: image.getWide(at + ENTRY.offset),
    number: image.getWide(at + ENTRY.number),
    sizeBytes: image.get(at + ENTRY.length),
    retryCount: image.get(at + ENTRY.retryCount),
    lastRetryMs: image.getWide(at + ENTRY.lastRetry),
  };
}
