import type { LockOwners } from '../index/entry-lock.js';
import { ENTRY, FIELD, NONE, STATUS } from '../index/layout.js';
import { release } from '../index/lists.js';
import { isConsumed } from '../index/marks.js';
import { eraseRecord } from '../record/record.js';
import type { Pair } from './pair.js';
import type { TakeOptions } from './types.js';

/** An entry that a walk has locked. */
export interface Claimed {
  entry: number;
  offset: number;
  number: number;
  sizeBytes: number;
  retryCount: number;
  lastRetryMs: number;
}

/** Entries that one walk looks at; bounds how long the mutex is held when many messages wait for their next try. */
const MAX_VISITED_ENTRIES = 2048;

export interface ClaimResult {
  claimed: Claimed[];
  /** Where the next walk begins. */
  cursor: number;
  /** How many entries it visited at. */
  visited: number;
  /** Entries on the list. */
  inUse: number;
}

/**
 * Takes messages in queue order [0035], from `cursor` on and around once: locks those that are ready, due and unlocked.
 * What dead workers left behind is cleaned up on the way: a lock of theirs counts as none, a message that they had
 * reserved and never confirmed is dropped, one that they had delivered is released.
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

/** The cursor may have been released since, and even used again; any entry in use is a good place to begin. */
function startEntry({ image }: Pair, cursor: number): number {
  const known = cursor !== NONE && image.get(image.entryWord(cursor) + ENTRY.status) !== STATUS.free;
  return known ? cursor : image.get(FIELD.head);
}

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
  return options.due(image.get(at + ENTRY.retryCount), image.getWide(at + ENTRY.lastRetry));
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
