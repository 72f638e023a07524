import { crc32c } from '@node-rs/crc32';
import type { DataBytes } from '../platform/data-map.js';
import { PAGE_BYTES } from '../platform/map.js';

/**
 * The generation of the message numbers that are given out now (restore/plan.ts), in the second sector of the data
 * file's first page and again of its last: not in the sector of the head, which is never written again. Little-endian:
 *
 *     512  8  "PPQGENER"
 *     520  4  generation
 *     524  4  CRC-32C of bytes 512-523
 */
const MAGIC = 'PPQGENER';
const AT = 512;
const NUMBER_AT = 8;
const CHECKED_BYTES = 12;
const BYTES = CHECKED_BYTES + 4;

/** First bytes of the two pages. They are to be written one after the other: one is whole at any time. */
export const generationPages = (data: DataBytes): number[] => [0, data.sizeBytes - PAGE_BYTES];

export function putGeneration(data: DataBytes, page: number, generation: number): void {
  const { bytes, at } = data.place(page + AT, BYTES);
  bytes.write(MAGIC, at, 'latin1');
  bytes.writeUInt32LE(generation, at + NUMBER_AT);
  bytes.writeUInt32LE(crc32c(bytes.subarray(at, at + CHECKED_BYTES)), at + CHECKED_BYTES);
}

/** The newest generation that is noted; 0 when none can be read, as in a queue that was never opened. */
export function readGeneration(data: DataBytes): number {
  const noted = generationPages(data).map((page) => {
    const { bytes, at } = data.place(page + AT, BYTES);
    const isWhole =
      bytes.toString('latin1', at, at + MAGIC.length) === MAGIC &&
      bytes.readUInt32LE(at + CHECKED_BYTES) === crc32c(bytes.subarray(at, at + CHECKED_BYTES));
    return isWhole ? bytes.readUInt32LE(at + NUMBER_AT) : 0;
  });
  return Math.max(...noted);
}
