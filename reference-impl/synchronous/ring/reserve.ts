import type { IndexImage } from '../index/image.js';
import { ENTRY, FIELD, NONE } from '../index/layout.js';
import { skipHead } from '../index/lists.js';

/** The part of the data file that holds records: `[start, end)`, both on slot boundaries. */
export interface Ring {
  start: number;
  end: number;
}

/**
 * Heads that one reservation skips at most. It bounds how long the mutex is held; a reservation that gives up here
 * leaves the ring as far as it came, and the next one goes on from there.
 */
const MAX_SKIPS = 4096;

/**
 * Storage availability check [0029-0033]: finds `extent` bytes in one piece behind W, and skips old messages that stand
 * in the way. Nothing is written but the list order; the caller then appends at the returned offset.
 *
 * R is the offset of the head of the in-use list, W the end of the last record written.
 *
 * @param extent bytes, a multiple of the slot size.
 * @returns the offset, or undefined when there is no such room.
 */
export function findSpace(image: IndexImage, ring: Ring, extent: number): number | undefined {
  if (image.getWide(FIELD.usedBytes) + extent > ring.end - ring.start) return undefined;
  // Once around the ring: every gap between two records has then been the one in front of R. A single old message is
  // skipped like any other, else the queue would be full for as long as it stays.
  const maxSkips = Math.min(image.get(FIELD.inUse), MAX_SKIPS);
  for (let skips = 0; ; skips += 1) {
    const offset = findFit(image, ring, extent);
    if (offset !== undefined) return offset;
    if (skips === maxSkips) return undefined;
    skipHead(image);
  }
}

/** Where the run fits without skipping anything: at W, at the start after a wrap, or nowhere. */
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
