import { assert } from '../../common/platform/errors.js';
import type { IndexImage } from '../index/image.js';
import { ENTRY, FIELD, NONE, STATUS, WORKER_SLOTS_WORD } from '../index/layout.js';
import { extentOf } from '../record/layout.js';
import type { Ring } from '../ring/reserve.js';
import type { LiveRecord, RestorePlan } from './plan.js';

/**
 * Rewrites both lists: every message of the plan is ready and unlocked, and every other entry is free. No
 * other process may have the queue open. If the rewrite is interrupted, the next restore starts again from
 * the data file.
 *
 * The in-use list is in ring order and begins behind the newest message. W is then the end of the newest
 * record, and the space between W and the first record of the list is free.
 */
export function applyPlan(image: IndexImage, ring: Ring, plan: RestorePlan): void {
  const { entries, workerSlots } = image.geometry;
  assert(plan.live.length <= entries, 'the index has an entry for every message');
  const order = ringOrder(plan.live);
  order.forEach((alive, entry) => {
    writeEntry(image, entry, alive, entry === order.length - 1 ? NONE : entry + 1);
  });
  for (let entry = order.length; entry < entries; entry += 1) {
    const at = image.entryWord(entry);
    image.put(at + ENTRY.status, STATUS.free);
    image.put(at + ENTRY.lock, 0);
    image.put(at + ENTRY.next, entry + 1 < entries ? entry + 1 : NONE);
  }
  const newest = order.at(-1);
  image.put(FIELD.head, newest ? 0 : NONE);
  image.put(FIELD.tail, newest ? order.length - 1 : NONE);
  image.put(FIELD.free, order.length < entries ? order.length : NONE);
  image.put(FIELD.inUse, order.length);
  image.putWide(
    FIELD.usedBytes,
    order.reduce((sum, alive) => sum + extentOf(alive.sizeBytes), 0),
  );
  image.putWide(FIELD.writeOffset, newest ? newest.offset + extentOf(newest.sizeBytes) : ring.start);
  image.putWide(FIELD.nextNumber, plan.nextNumber);
  image.put(FIELD.undoCount, 0);
  image.put(FIELD.mutexOwner, 0);
  // Start a new incarnation of every slot. Flipped bits in these words could otherwise make the lock of a
  // dead worker look alive. This is the only harm they can do, but the repair costs nothing.
  for (let slot = 0; slot < workerSlots; slot += 1) {
    image.put(WORKER_SLOTS_WORD + slot, image.get(WORKER_SLOTS_WORD + slot) + 1);
  }
}

/**
 * Rotates the messages, which are in order of offset, so that the newest one (by number, because
 * clocks can go back) is the last.
 */
function ringOrder(live: readonly LiveRecord[]): LiveRecord[] {
  let newest = 0;
  live.forEach((record, index) => {
    if (record.number > (live[newest] as LiveRecord).number) newest = index;
  });
  return [...live.slice(newest + 1), ...live.slice(0, newest + 1)];
}

/** Fills entry `entry` with a ready message; its predecessor on the list is the entry before it. */
function writeEntry(image: IndexImage, entry: number, record: LiveRecord, next: number): void {
  const at = image.entryWord(entry);
  image.putWide(at + ENTRY.offset, record.offset);
  image.putWide(at + ENTRY.number, record.number);
  image.put(at + ENTRY.length, record.sizeBytes);
  image.put(at + ENTRY.lock, 0);
  image.put(at + ENTRY.type, record.type);
  image.put(at + ENTRY.status, STATUS.ready);
  image.put(at + ENTRY.checksum, record.checksum | 0);
  image.put(at + ENTRY.retryCount, record.retryCount);
  image.putWide(at + ENTRY.lastRetry, record.lastRetryMs);
  if (record.retryCount > 0) {
    image.put(at + ENTRY.answered, record.answered);
    image.put(at + ENTRY.firstTry, record.firstTry);
  }
  image.put(at + ENTRY.previous, entry - 1 >= 0 ? entry - 1 : NONE);
  image.put(at + ENTRY.next, next);
}
