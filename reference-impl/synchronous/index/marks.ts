import { type ChecksumKey, scramble } from '../../common/record/checksum.js';
import { SLOT_BYTES } from '../record/layout.js';
import type { IndexImage } from './image.js';

/**
 * Consumption marks. The index holds one mark for each slot of the data file: a fingerprint of the last message
 * that was consumed at this slot.
 *
 * The patent restores every valid record that is not in the index, because the message may be lost otherwise
 * [0026]. But this is also true of every message that was consumed long ago and not yet overwritten.
 * The mark distinguishes the two. A message number is never used twice, and no message is consumed before it is
 * on the disk. A mark that matches therefore proves that the message was consumed, in whatever order the pages
 * reached the disk. A mark that does not match, for whatever reason, means that the message is alive.
 *
 * The fingerprint is keyed and depends on the slot, so that no flipped bit turns the mark of one message into
 * the mark of another. It has two 32-bit words. A process killed between the two stores leaves a mark that
 * matches no message.
 */

/** The golden ratio as a 32-bit fraction: a factor that spreads the slot numbers over all bits. */
const GOLDEN_RATIO_32 = 0x9e3779b1;
const HIGH = 2 ** 32;

const slotHash = (offset: number): number => Math.imul(offset / SLOT_BYTES, GOLDEN_RATIO_32);

const firstWord = (key: ChecksumKey, slot: number, number: number): number =>
  scramble((number | 0) ^ key.low ^ slot) | 0;

const secondWord = (key: ChecksumKey, slot: number, number: number, first: number): number =>
  scramble(Math.floor(number / HIGH) ^ key.high ^ scramble(first ^ slot)) | 0;

const markWord = (image: IndexImage, offset: number): number =>
  image.firstMarkWord + 2 * (offset / SLOT_BYTES);

/**
 * Marks message `number`, whose record is at `offset`, as consumed. Only the message's owner calls it, so no
 * mutex is needed.
 */
export function markConsumed(image: IndexImage, key: ChecksumKey, offset: number, number: number): void {
  const slot = slotHash(offset);
  const word = markWord(image, offset);
  const first = firstWord(key, slot, number);
  image.put(word, first);
  image.put(word + 1, secondWord(key, slot, number, first));
}

/** Returns whether message `number`, whose record is at `offset`, is marked as consumed in this index. */
export function isConsumed(image: IndexImage, key: ChecksumKey, offset: number, number: number): boolean {
  const slot = slotHash(offset);
  const word = markWord(image, offset);
  const first = firstWord(key, slot, number);
  return image.get(word) === first && image.get(word + 1) === secondWord(key, slot, number, first);
}
