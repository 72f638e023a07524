import { type ChecksumKey, scramble } from '../record/checksum.js';
import { SLOT_BYTES } from '../record/layout.js';
import type { IndexImage } from './image.js';

/**
 * Consumption marks: beside each slot of the data file, a fingerprint of the last message consumed there.
 *
 * The restore of [0026] takes "valid, and not in the index" for lost; that is also true of every message that was
 * consumed long ago and not yet overwritten. A mark tells the two apart. A message number is never used twice,
 * and nothing is consumed before it is on the disk, so a mark that matches says "consumed" with certainty, whenever
 * it reached the disk relative to anything else; a mark that does not match, for whatever reason, says "alive".
 *
 * The fingerprint is keyed and covers the slot, so that no flipped bit turns one message's mark into another's. It
 * is two 32-bit words; a process killed between the two stores leaves a mark that matches nothing.
 */
const GOLDEN_RATIO_32 = 0x9e3779b1;
const HIGH = 2 ** 32;

const slotHash = (offset: number): number => Math.imul(offset / SLOT_BYTES, GOLDEN_RATIO_32);

const firstWord = (key: ChecksumKey, slot: number, number: number): number =>
  scramble((number | 0) ^ key.low ^ slot) | 0;

const secondWord = (key: ChecksumKey, slot: number, number: number, first: number): number =>
  scramble(Math.floor(number / HIGH) ^ key.high ^ scramble(first ^ slot)) | 0;

const markWord = (image: IndexImage, offset: number): number =>
  image.firstMarkWord + 2 * (offset / SLOT_BYTES);

/** Notes that message `number`, whose record is at `offset`, is consumed. Needs no mutex: only its owner does it. */
export function markConsumed(image: IndexImage, key: ChecksumKey, offset: number, number: number): void {
  const slot = slotHash(offset);
  const word = markWord(image, offset);
  const first = firstWord(key, slot, number);
  image.put(word, first);
  image.put(word + 1, secondWord(key, slot, number, first));
}

/** Was message `number` at `offset` consumed, as far as this index knows? */
export function isConsumed(image: IndexImage, key: ChecksumKey, offset: number, number: number): boolean {
  const slot = slotHash(offset);
  const word = markWord(image, offset);
  const first = firstWord(key, slot, number);
  return image.get(word) === first && image.get(word + 1) === secondWord(key, slot, number, first);
}
