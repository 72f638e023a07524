import { assert } from '../../common/platform/errors.js';
import { extentOf } from '../record/layout.js';
import type { IndexImage } from './image.js';
import { ENTRY, FIELD, NONE, STATUS } from './layout.js';

/** The position and identity of a record in an index entry. */
export interface ListedRecord {
  offset: number;
  number: number;
  /** Size of the whole record in bytes, checksums included. */
  sizeBytes: number;
  type: number;
}

/**
 * The two lists of the index: the entries in use, and the free ones (patent [0034, 0035]). Each exported
 * function that changes them makes one atomic change: if the process dies in it, the next process that takes
 * the mutex undoes the change completely. The caller must hold the mutex of the index (patent [0018]).
 *
 * The in-use list is in ring order: from its head to its tail the offsets grow, and wrap around at most once.
 */

/**
 * Stores position, number, size and type of a record in a free entry, and moves this entry to the tail of the
 * in-use list. Its status is `reserved`: no worker delivers the message yet. The next record gets the offset
 * behind this one and the next message number.
 * @param lock names the worker that stores the record (entry-lock.ts). It owns the entry until it is unlocked.
 * @returns the number of the entry, or NONE when no entry is free.
 */
export function append(image: IndexImage, listed: ListedRecord, lock: number): number {
  const entry = image.get(FIELD.free);
  if (entry === NONE) return NONE;
  const at = image.entryWord(entry);
  assert(image.get(at + ENTRY.status) === STATUS.free, 'an entry of the free list is free');
  image.change(FIELD.free, image.get(at + ENTRY.next));
  // These fields need no undo, because no process reads the fields of an entry that is still marked free.
  image.putWide(at + ENTRY.offset, listed.offset);
  image.putWide(at + ENTRY.number, listed.number);
  image.put(at + ENTRY.length, listed.sizeBytes);
  image.put(at + ENTRY.lock, lock);
  image.put(at + ENTRY.type, listed.type);
  image.put(at + ENTRY.checksum, 0);
  image.put(at + ENTRY.retryCount, 0);
  image.putWide(at + ENTRY.lastRetry, 0);
  linkAtTail(image, entry, at);
  image.change(at + ENTRY.status, STATUS.reserved);
  image.change(FIELD.inUse, image.get(FIELD.inUse) + 1);
  image.changeWide(FIELD.usedBytes, image.getWide(FIELD.usedBytes) + extentOf(listed.sizeBytes));
  image.changeWide(FIELD.writeOffset, listed.offset + extentOf(listed.sizeBytes));
  image.changeWide(FIELD.nextNumber, listed.number + 1);
  image.commit();
  return entry;
}

/**
 * Moves an entry from the in-use list to the free list (patent [0035]). The space of its record becomes free
 * too.
 */
export function release(image: IndexImage, entry: number): void {
  const at = image.entryWord(entry);
  assert(image.get(at + ENTRY.status) !== STATUS.free, 'only an entry in use is released');
  unlink(image, at);
  image.change(at + ENTRY.status, STATUS.free);
  image.change(at + ENTRY.lock, 0);
  image.change(at + ENTRY.next, image.get(FIELD.free));
  image.change(FIELD.free, entry);
  image.change(FIELD.inUse, image.get(FIELD.inUse) - 1);
  const extent = extentOf(image.get(at + ENTRY.length));
  image.changeWide(FIELD.usedBytes, image.getWide(FIELD.usedBytes) - extent);
  image.commit();
}

/**
 * Skips the old message at the head of the in-use list, so that new records are written behind it. Moves its
 * entry to the tail of the list, and the write position W behind its record. The free space then ends at the
 * record of the new head, which the patent calls R [0032, 0033].
 */
export function skipHead(image: IndexImage): void {
  const entry = image.get(FIELD.head);
  assert(entry !== NONE, 'only a message that is there is skipped');
  const at = image.entryWord(entry);
  unlink(image, at);
  linkAtTail(image, entry, at);
  const end = image.getWide(at + ENTRY.offset) + extentOf(image.get(at + ENTRY.length));
  image.changeWide(FIELD.writeOffset, end);
  image.commit();
}

function linkAtTail(image: IndexImage, entry: number, at: number): void {
  const tail = image.get(FIELD.tail);
  image.change(at + ENTRY.previous, tail);
  image.change(at + ENTRY.next, NONE);
  if (tail === NONE) image.change(FIELD.head, entry);
  else image.change(image.entryWord(tail) + ENTRY.next, entry);
  image.change(FIELD.tail, entry);
}

function unlink(image: IndexImage, at: number): void {
  const previous = image.get(at + ENTRY.previous);
  const next = image.get(at + ENTRY.next);
  if (previous === NONE) image.change(FIELD.head, next);
  else image.change(image.entryWord(previous) + ENTRY.next, next);
  if (next === NONE) image.change(FIELD.tail, previous);
  else image.change(image.entryWord(next) + ENTRY.previous, previous);
}

/** Returns the position and identity of an entry's record. */
export function listedAt(image: IndexImage, entry: number): ListedRecord {
  const at = image.entryWord(entry);
  return {
    offset: image.getWide(at + ENTRY.offset),
    number: image.getWide(at + ENTRY.number),
    sizeBytes: image.get(at + ENTRY.length),
    type: image.get(at + ENTRY.type),
  };
}
