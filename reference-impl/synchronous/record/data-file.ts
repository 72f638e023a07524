import { crc32c } from '@node-rs/crc32';
import { QueueError } from '../../common/platform/errors.js';
import type { Kernel } from '../../common/platform/kernel.js';
import { PAGE_BYTES } from '../../common/platform/map.js';
import type { ChecksumKey } from '../../common/record/checksum.js';

/**
 * Header of the queue data file, in the first sector of its first page. It is written once, when the queue is
 * installed. A copy is in the last page of the file, so that one damaged page does not make the queue
 * unreadable. Little-endian:
 *
 *     0   8  "PPQDATA1"
 *     8   4  version of the files (1)
 *    12   4  size of a slot (256)
 *    16   8  size of the file in bytes
 *    24   8  size of the largest record
 *    32  16  id of the queue
 *    48   8  key of the checksums
 *    56   4  CRC-32C of bytes 0-55
 *
 * The second sector of each of the two pages holds the generation of the message numbers (generation.ts). The
 * ring of records lies between the two pages.
 */

/** First bytes of a data file. */
const MAGIC = 'PPQDATA1';
export const FORMAT_VERSION = 1;
const CHECKSUMMED_BYTES = 56;

/** Byte at which the ring starts. It ends one page before the end of the file. */
export const RING_START = PAGE_BYTES;

/** The content of the data file's header. Sizes are in bytes. */
export interface DataFileHeader {
  sizeBytes: number;
  maxRecordBytes: number;
  /** Id of the queue: 16 random bytes in hex. */
  queueId: string;
  key: ChecksumKey;
}

/** Makes the header of a new data file, with a random queue id and checksum key. */
export function newDataFileHeader(
  sizeBytes: number,
  maxRecordBytes: number,
  { randomBytes }: Pick<Kernel, 'randomBytes'>,
): DataFileHeader {
  const secret = randomBytes(24);
  const key = { low: secret.readUInt32LE(16), high: secret.readUInt32LE(20) };
  return { sizeBytes, maxRecordBytes, queueId: secret.toString('hex', 0, 16), key };
}

/** Encodes the header as a whole page; the rest of the page is zero. */
export function encodeDataFileHeader(head: DataFileHeader): Buffer {
  const page = Buffer.alloc(PAGE_BYTES);
  page.write(MAGIC, 0, 'latin1');
  page.writeUInt32LE(FORMAT_VERSION, 8);
  page.writeUInt32LE(256, 12);
  page.writeBigUInt64LE(BigInt(head.sizeBytes), 16);
  page.writeBigUInt64LE(BigInt(head.maxRecordBytes), 24);
  page.write(head.queueId, 32, 'hex');
  page.writeUInt32LE(head.key.low, 48);
  page.writeUInt32LE(head.key.high, 52);
  page.writeUInt32LE(crc32c(page.subarray(0, CHECKSUMMED_BYTES)), CHECKSUMMED_BYTES);
  return page;
}

/**
 * Decodes a page of the data file as its header.
 *
 * @param path path of the file, for the error messages.
 * @throws QueueError `not-a-queue` when the page does not begin with the magic, `damaged-queue` when its
 * checksum is wrong, `wrong-version` when it has another version.
 */
export function decodeDataFileHeader(page: Buffer, path: string): DataFileHeader {
  if (page.length < PAGE_BYTES || page.toString('latin1', 0, 8) !== MAGIC) {
    throw new QueueError(
      'not-a-queue',
      `${path} is not a queue data file: expected it to begin with ${MAGIC}`,
    );
  }
  const version = page.readUInt32LE(8);
  if (page.readUInt32LE(CHECKSUMMED_BYTES) !== crc32c(page.subarray(0, CHECKSUMMED_BYTES))) {
    throw new QueueError('damaged-queue', `${path}: the head of the data file has a wrong checksum`);
  }
  if (version !== FORMAT_VERSION) {
    throw new QueueError(
      'wrong-version',
      `${path} has version ${version}, this program knows ${FORMAT_VERSION}`,
    );
  }
  return {
    sizeBytes: Number(page.readBigUInt64LE(16)),
    maxRecordBytes: Number(page.readBigUInt64LE(24)),
    queueId: page.toString('hex', 32, 48),
    key: { low: page.readUInt32LE(48), high: page.readUInt32LE(52) },
  };
}
