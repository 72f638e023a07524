import { crc32c } from '@node-rs/crc32';
import { SLOT_BYTES } from './layout.js';

/**
 * The key of a queue's checksums: 64 secret bits from the data file's header. A sender can put signature, header
 * and checksum of a record into a message, but not the checksum that this queue would have written at that
 * place, so that the scan cannot take the sender's bytes for a record of its own.
 */
export interface ChecksumKey {
  readonly low: number;
  readonly high: number;
}

/** Scrambles 32 bits; every bit of the input changes about half of the output, and no two inputs meet. */
export function scramble(word: number): number {
  let x = word >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** The CRC's first state for a record at `offset`: a record copied to another place is not valid there. */
export const seedAt = (key: ChecksumKey, offset: number): number =>
  scramble(scramble(key.low ^ (offset / SLOT_BYTES)) ^ key.high);

/**
 * The first state of the CRC over a record's body: it depends on the header through the header's checksum. (Running the
 * CRC on over header and checksum would not do: behind its own checksum a CRC is in the same state for every header, so
 * that a new header in front of an old body would pass, which is what a torn write leaves.)
 */
export const bodySeed = (seed: number, headerChecksum: number): number =>
  scramble(seed ^ scramble(headerChecksum));

/** Up to so many bytes the way into native code costs more than a table. */
const MAX_TABLE_BYTES = 64;
/** The CRC-32C polynomial, lowest bit first. */
const POLYNOMIAL = 0x82f63b78;
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let word = byte;
  for (let bit = 0; bit < 8; bit += 1) word = (word >>> 1) ^ (word & 1 ? POLYNOMIAL : 0);
  return word;
});

/** Keyed CRC-32C of `bytes[from, to)`. */
export function checksum(bytes: Buffer, from: number, to: number, seed: number): number {
  if (to - from > MAX_TABLE_BYTES) return crc32c(bytes.subarray(from, to), seed);
  let sum = ~seed;
  for (let at = from; at < to; at += 1) {
    sum = (TABLE[(sum ^ (bytes[at] as number)) & 0xff] as number) ^ (sum >>> 8);
  }
  return ~sum >>> 0;
}
