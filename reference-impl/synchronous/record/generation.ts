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
const SECTOR_OFFSET = 512;
const VALUE_OFFSET = 8;
const CHECKSUMMED_BYTES = 12;
const TOTAL_BYTES = CHECKSUMMED_BYTES + 4;

/** First bytes of the two pages. They are to be written one after the other: one is whole at any time. */
export const generationPages = (data: DataBytes): number[] => [0, data.sizeBytes - PAGE_BYTES];

export function putGeneration(data: DataBytes, page: number, generation: number): void {
  const { bytes, at } = data.locate(page + SECTOR_OFFSET, TOTAL_BYTES);
  bytes.write(MAGIC, at, 'latin1');
  bytes.writeUInt32LE(generation, at + VALUE_OFFSET);
  bytes.writeUInt32LE(crc32c(bytes.subarray(at, at + CHECKSUMMED_BYTES)), at + CHECKSUMMED_BYTES);
}

/** The newest generation that is noted; 0 when none can be read, as in a queue that was never opened. */
export function readGeneration(data: DataBytes): number {
  const noted = generationPages(data).map((page) => {
    const { bytes, at } = data.locate(page + SECTOR_OFFSET, TOTAL_BYTES);
    const isWhole =
      bytes.toString('latin1', at, at + MAGIC.length) === MAGIC &&
      bytes.readUInt32LE(at + CHECKSUMMED_BYTES) === crc32c(bytes.subarray(at, at + CHECKSUMMED_BYTES));
    return isWhole ? bytes.readUInt32LE(at + VALUE_OFFSET) : 0;
  });
  return Math.max(...noted);
}
