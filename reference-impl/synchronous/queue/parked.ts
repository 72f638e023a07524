import type { IndexImage } from '../index/image.js';
import { ENTRY, PARKED_BIT, STATUS } from '../index/layout.js';
import { extentOf } from '../record/layout.js';

/**
 * Counts the parked messages of a pair, without the mutex: the result decides about shares, so that a change
 * during the count does no harm.
 */
export function parkedIn(image: IndexImage): { messages: number; bytes: number } {
  let messages = 0;
  let bytes = 0;
  for (let entry = 0; entry < image.geometry.entries; entry += 1) {
    const at = image.entryWord(entry);
    const isParked =
      image.get(at + ENTRY.status) === STATUS.ready &&
      image.get(at + ENTRY.retryCount) > 0 &&
      (image.get(at + ENTRY.answered) & PARKED_BIT) !== 0;
    if (!isParked) continue;
    messages += 1;
    bytes += extentOf(image.get(at + ENTRY.length));
  }
  return { messages, bytes };
}
