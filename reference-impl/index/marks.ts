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
const GOLDEN = 0x9e3779b1;
const HIGH = 2 ** 32;

function fingerprint(key: ChecksumKey, offset: number, number: number): [number, number] {
  const slot = Math.imul(offset / SLOT_BYTES, GOLDEN);
  const first = scramble((number | 0) ^ key.low ^ slot);
  const second = scramble(Math.floor(number / HIGH) ^ key.high ^ scramble(first ^ slot));
  return [first | 0, second | 0];
}

const wordOf = (image: IndexImage, offset: number): number => image.marksWord + 2 * (offset / SLOT_BYTES);

/** Notes that message `number`, whose record is at `offset`, is consumed. Needs no mutex: only its owner does it. */
export function markConsumed(image: IndexImage, key: ChecksumKey, offset: number, number: number): void {
  const [first, second] = fingerprint(key, offset, number);
  const word = wordOf(image, offset);
  image.put(word, first);
  image.put(word + 1, second);
}

/** Was message `number` at `offset` consumed, as far as this index knows? */
export function isConsumed(image: IndexImage, key: ChecksumKey, offset: number, number: number): boolean {
  const [first, second] = fingerprint(key, offset, number);
  const word = wordOf(image, offset);
  return image.get(word) === first && image.get(word + 1) === second;
}
