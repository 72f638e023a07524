import { crc32c } from '@node-rs/crc32';
import type { Kernel } from '../../common/platform/kernel.js';
import { PAGE_BYTES } from '../../common/platform/map.js';
import { FORMAT_VERSION } from '../record/data-file.js';
import { IndexImage } from './image.js';
import {
  ENTRIES_OFFSET,
  ENTRY,
  ENTRY_BYTES,
  FIELD,
  type Geometry,
  indexBytes,
  MAX_WORKER_SLOTS,
  NONE,
  WORD_BYTES,
} from './layout.js';

/**
 * Header of the index file, in its first page. It is written when the file is made. Little-endian:
 *
 *     0   8  "PPQINDEX"
 *     8   4  version of the files
 *    12   4  size of an entry (64)
 *    16   4  number of entries
 *    20   4  number of worker slots
 *    24   8  size of the data file in bytes
 *    32  16  id of the queue
 *    48   4  CRC-32C of bytes 0-47
 */

/** First bytes of an index file. */
const MAGIC = 'PPQINDEX';
const CHECKSUMMED_BYTES = 48;
const OF_ANOTHER_QUEUE = 'of another queue';

/** Encodes the header as a whole page; the rest of the page is zero. */
export function encodeIndexHeader(geometry: Geometry, queueId: string): Buffer {
  const page = Buffer.alloc(PAGE_BYTES);
  page.write(MAGIC, 0, 'latin1');
  page.writeUInt32LE(FORMAT_VERSION, 8);
  page.writeUInt32LE(ENTRY_BYTES, 12);
  page.writeUInt32LE(geometry.entries, 16);
  page.writeUInt32LE(geometry.workerSlots, 20);
  page.writeBigUInt64LE(BigInt(geometry.dataBytes), 24);
  page.write(queueId, 32, 'hex');
  page.writeUInt32LE(crc32c(page.subarray(0, CHECKSUMMED_BYTES)), CHECKSUMMED_BYTES);
  return page;
}

/**
 * Decoded header of an index file, or a short reason why the index is unusable. The reason affects only the
 * report.
 */
export type IndexHeader = { usable: true; geometry: Geometry } | { usable: false; why: string };

/**
 * Decodes the header of the file at the path of the index, whatever the file holds.
 *
 * @param page first page of the file; shorter when the file is.
 * @param fileBytes size of the file.
 * @param queueId id in the header of the data file.
 * @param dataBytes size of the data file.
 */
export function decodeIndexHeader(
  page: Buffer,
  fileBytes: number,
  queueId: string,
  dataBytes: number,
): IndexHeader {
  const no = (why: string): IndexHeader => ({ usable: false, why });
  if (fileBytes === 0) return no('empty');
  if (page.length < PAGE_BYTES) return no('truncated');
  if (page.toString('latin1', 0, 8) !== MAGIC) return no('not an index file');
  if (page.readUInt32LE(CHECKSUMMED_BYTES) !== crc32c(page.subarray(0, CHECKSUMMED_BYTES)))
    return no('head damaged');
  if (page.readUInt32LE(8) !== FORMAT_VERSION || page.readUInt32LE(12) !== ENTRY_BYTES)
    return no('other version');
  if (page.toString('hex', 32, 48) !== queueId) return no(OF_ANOTHER_QUEUE);
  const geometry = {
    entries: page.readUInt32LE(16),
    workerSlots: page.readUInt32LE(20),
    dataBytes: Number(page.readBigUInt64LE(24)),
  };
  if (geometry.dataBytes !== dataBytes || geometry.workerSlots > MAX_WORKER_SLOTS)
    return no('of another size');
  if (fileBytes !== indexBytes(geometry)) return no('truncated');
  return { usable: true, geometry };
}

/**
 * Reads what is left of the entries of an index file whose header or size is wrong. Nothing in it can be trusted: a
 * restore may only name messages by it that are not in the data file any more.
 *
 * @param fileBytes size of the file.
 * @param geometry geometry that the file is assumed to have.
 * @returns undefined when the file ends before the entries, or when its header is that of another queue.
 */
export function salvageEntries(
  kernel: Kernel,
  path: string,
  fileBytes: number,
  header: IndexHeader,
  geometry: Geometry,
): IndexImage | undefined {
  const isForeign = !header.usable && header.why === OF_ANOTHER_QUEUE;
  if (isForeign || fileBytes <= ENTRIES_OFFSET) return undefined;
  const bytes = Buffer.alloc(indexBytes({ ...geometry, dataBytes: 0 }));
  const fd = kernel.open(path, 'r');
  try {
    const length = Math.min(fileBytes, ENTRIES_OFFSET + geometry.entries * ENTRY_BYTES);
    kernel.read(fd, bytes, 0, length, 0);
  } finally {
    kernel.close(fd);
  }
  return new IndexImage(new Uint8Array(bytes), { ...geometry, dataBytes: 0 });
}

/**
 * Makes the beginning of an index file without messages: the header, the fields and the free entries. The rest
 * of the file is not included. It has room for one mark per slot of the data file, which says which message was
 * consumed there (marks.ts). In a new file it is all zeros.
 * @param writeOffset byte offset in the data file at which the first message is written.
 */
export function emptyIndex(geometry: Geometry, queueId: string, writeOffset: number): Buffer {
  const bytes = Buffer.alloc(ENTRIES_OFFSET + geometry.entries * ENTRY_BYTES);
  encodeIndexHeader(geometry, queueId).copy(bytes);
  const put = (word: number, value: number): void => {
    bytes.writeInt32LE(value, word * WORD_BYTES);
  };
  put(FIELD.head, NONE);
  put(FIELD.tail, NONE);
  put(FIELD.free, 0);
  put(FIELD.nextNumber, 0);
  put(FIELD.nextNumber + 1, 1); // generation 1
  put(FIELD.writeOffset, writeOffset);
  for (let entry = 0; entry < geometry.entries; entry += 1) {
    const next = (ENTRIES_OFFSET + entry * ENTRY_BYTES) / WORD_BYTES + ENTRY.next;
    put(next, entry + 1 < geometry.entries ? entry + 1 : NONE);
  }
  return bytes;
}

/**
 * Begins a sync of the index file. The caller calls `endIndexSync` when the sync has succeeded, and only then.
 * After a failed sync the kernel treats the pages as clean. The next sync would succeed without writing them,
 * and the marks of some consumed messages (marks.ts) would not be on the disk. If the last sync did not end,
 * because it failed or because its process was killed, this function therefore marks every page dirty again.
 */
export function beginIndexSync(image: IndexImage, kernel: Kernel): void {
  const { words } = image;
  if (image.get(FIELD.indexSyncing) !== 0) {
    const bytes = Buffer.from(words.buffer, words.byteOffset, words.byteLength);
    for (let at = 0; at < bytes.length; at += PAGE_BYTES) kernel.markDirty(bytes, at);
  }
  image.put(FIELD.indexSyncing, 1);
}

/** Ends a sync of the index file that succeeded. */
export function endIndexSync(image: IndexImage): void {
  image.put(FIELD.indexSyncing, 0);
}
