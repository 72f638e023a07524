import { crc32c } from '@node-rs/crc32';

/**
 * The key of a queue's checksums: 64 secret bits from the data file's header. A sender can put the signature,
 * header and checksum of a record into a message. It cannot know the checksum that this queue would write at
 * that offset, so the scan does not mistake the sender's bytes for a record of the queue.
 */
export interface ChecksumKey {
  readonly low: number;
  readonly high: number;
}

/**
 * Scrambles 32 bits. Every input bit changes about half of the output bits, and no two inputs give the same
 * output.
 */
export function scramble(word: number): number {
  let x = word >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/**
 * Returns the initial state of the CRC for a record at a place. It depends on the place, so that a record copied to
 * another one is not valid there.
 * @param place number of the place, from 0 to 2^32 - 1.
 */
export const seedOf = (key: ChecksumKey, place: number): number =>
  scramble(scramble(key.low ^ place) ^ key.high);

/**
 * Returns the initial state of the CRC over a record's body. It depends on the header through the header's
 * checksum. It is not enough to continue the CRC over the header and its checksum: behind its own checksum a
 * CRC is in the same state for every header. A new header in front of an old body would then be valid, and a
 * torn write leaves exactly that.
 */
export const bodySeed = (seed: number, headerChecksum: number): number =>
  scramble(seed ^ scramble(headerChecksum));

/**
 * Upper bound of the bytes that are summed with a table. For so few bytes a call into native code costs more.
 */
const MAX_TABLE_BYTES = 64;
/** The CRC-32C polynomial, lowest bit first. */
const POLYNOMIAL = 0x82f63b78;
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let word = byte;
  for (let bit = 0; bit < 8; bit += 1) word = (word >>> 1) ^ (word & 1 ? POLYNOMIAL : 0);
  return word;
});
/** The table for a byte that 1, 2 or 3 others follow: four bytes are summed in one step. */
const TABLE_1 = TABLE.map(followed);
const TABLE_2 = TABLE_1.map(followed);
const TABLE_3 = TABLE_2.map(followed);

function followed(word: number): number {
  return (word >>> 8) ^ (TABLE[word & 0xff] as number);
}

/** Computes the keyed CRC-32C of `bytes[from, to)`; `seed` is its initial state, or the checksum of the bytes before them. */
export function checksum(bytes: Buffer, from: number, to: number, seed: number): number {
  if (to - from > MAX_TABLE_BYTES) {
    // A view of a part costs a third of the call.
    const isWhole = from === 0 && to === bytes.length;
    return crc32c(isWhole ? bytes : bytes.subarray(from, to), seed);
  }
  let sum = ~seed;
  let at = from;
  for (; at + 4 <= to; at += 4) {
    sum =
      (TABLE_3[(sum ^ (bytes[at] as number)) & 0xff] as number) ^
      (TABLE_2[((sum >>> 8) ^ (bytes[at + 1] as number)) & 0xff] as number) ^
      (TABLE_1[((sum >>> 16) ^ (bytes[at + 2] as number)) & 0xff] as number) ^
      (TABLE[((sum >>> 24) ^ (bytes[at + 3] as number)) & 0xff] as number);
  }
  for (; at < to; at += 1) sum = (TABLE[(sum ^ (bytes[at] as number)) & 0xff] as number) ^ (sum >>> 8);
  return ~sum >>> 0;
}

/** Computes the CRC-32C of the first `length` characters of a text, as UTF-8. A short text of ASCII needs no call into native code. */
export function crc32cOfText(text: string, length: number): number {
  let sum = ~0;
  for (let at = 0; at < length; at += 1) {
    const code = text.charCodeAt(at);
    if (code > 0x7f || length > MAX_TABLE_BYTES) return crc32c(text.slice(0, length));
    sum = (TABLE[(sum ^ code) & 0xff] as number) ^ (sum >>> 8);
  }
  return ~sum >>> 0;
}
