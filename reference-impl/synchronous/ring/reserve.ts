import type { IndexImage } from '../index/image.js';
import { ENTRY, FIELD, NONE } from '../index/layout.js';
import { skipHead } from '../index/lists.js';

/**
 * The part of the data file that holds records: the bytes from `start` up to but not including `end`. Both are
 * multiples of the slot size.
 */
export interface Ring {
  start: number;
  end: number;
}

/**
 * Upper bound of the old messages that one reservation skips. It limits how long the mutex is held. A
 * reservation that gives up here keeps the skips that it made, and the next one continues from there.
 */
const MAX_SKIPS = 4096;

/**
 * Finds `extent` contiguous free bytes for a record, and skips old messages that are in the way. The function
 * is the storage availability check of the patent [0029-0033]. It changes only the order of the list and W. The
 * caller then appends an entry with the returned offset.
 *
 * The patent calls the two ends of the free space W and R. W is the end of the last record that was written or
 * skipped. R is the offset of the record at the head of the in-use list.
 *
 * @param extent size in bytes, a multiple of the slot size.
 * @returns the offset, or undefined when there is no such free space.
 */
export function findSpace(image: IndexImage, ring: Ring, extent: number): number | undefined {
  if (image.getWide(FIELD.usedBytes) + extent > ring.end - ring.start) return undefined;
  // Go around the ring at most once: every gap between two records was then the gap in front of R. Skip a
  // single old message like any other: otherwise the queue would be full until that message is consumed.
  const maxSkips = Math.min(image.get(FIELD.inUse), MAX_SKIPS);
  for (let skips = 0; ; skips += 1) {
    const offset = findFit(image, ring, extent);
    if (offset !== undefined) return offset;
    if (skips === maxSkips) return undefined;
    skipHead(image);
  }
}

/**
 * Finds `extent` contiguous free bytes without skipping a message.
 *
 * @returns the end of the last record that was written or skipped (W), or the start of the ring; undefined when
 * the bytes fit at neither offset.
 */
export function findFit(image: IndexImage, ring: Ring, extent: number): number | undefined {
  const write = image.getWide(FIELD.writeOffset);
  const head = image.get(FIELD.head);
  if (head === NONE) {
    if (write + extent <= ring.end) return write;
    return extent <= ring.end - ring.start ? ring.start : undefined;
  }
  const read = image.getWide(image.entryWord(head) + ENTRY.offset);
  if (read < write) {
    if (extent <= ring.end - write) return write; // [0031]
    return extent <= read - ring.start ? ring.start : undefined;
  }
  return extent <= read - write ? write : undefined; // [0032]
}
