import { crc32c } from '@node-rs/crc32';
import type { DataBytes } from '../../common/platform/data-map.js';
import { PAGE_BYTES } from '../../common/platform/map.js';

/**
 * The generation of the message numbers in use now (restore/plan.ts). It is in the second sector of the data
 * file's first page, with a copy in the second sector of its last page. It is not in the sector of the
 * header, which is never written again. Little-endian:
 *
 *     512  8  "PPQGENER"
 *     520  4  generation
 *     524  4  CRC-32C of bytes 512-523
 */

/** First bytes of a sector that holds the generation. */
const MAGIC = 'PPQGENER';
const SECTOR_OFFSET = 512;
const VALUE_OFFSET = 8;
const CHECKSUMMED_BYTES = 12;
const TOTAL_BYTES = CHECKSUMMED_BYTES + 4;

/**
 * Returns the offsets of the two pages of the data file that hold the generation of the message numbers. The
 * caller must write and sync them one after the other, so that one of them is whole at any time.
 */
export const generationPages = (data: DataBytes): number[] => [0, data.sizeBytes - PAGE_BYTES];

/** Writes the generation of the message numbers into one of the two pages that hold it. */
export function putGeneration(data: DataBytes, page: number, generation: number): void {
  const { bytes, at } = data.locate(page + SECTOR_OFFSET, TOTAL_BYTES);
  bytes.write(MAGIC, at, 'latin1');
  bytes.writeUInt32LE(generation, at + VALUE_OFFSET);
  bytes.writeUInt32LE(crc32c(bytes.subarray(at, at + CHECKSUMMED_BYTES)), at + CHECKSUMMED_BYTES);
}

/**
 * Reads the generation of the message numbers, the newer one of the two pages that hold it.
 *
 * @returns 0 when neither is readable, as in a queue never opened.
 */
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
