import type { DataBytes } from '../../common/platform/data-map.js';
import { bodySeed, type ChecksumKey, checksum } from '../../common/record/checksum.js';
import type { Body } from './body.js';
import { bodyBytes, encodeBody, TYPE_BYTE } from './codec.js';
import {
  HEADER_BYTES,
  HEADER_OFFSET,
  LAYOUT_VERSION,
  RECORD_OVERHEAD_BYTES,
  SIGNATURE_WORD,
} from './layout.js';
import { seedAt } from './seed.js';

/**
 * Returns the size in bytes of the record that holds this body, checksums included, before rounding up to
 * slots.
 */
export const recordBytes = (body: Body): number => RECORD_OVERHEAD_BYTES + bodyBytes(body);

/**
 * Writes a record into the data file at `offset`.
 *
 * @param sizeBytes `recordBytes` of the body.
 * @returns the checksum of the body, which the index entry stores too (patent [0019]).
 */
export function writeRecord(
  data: DataBytes,
  key: ChecksumKey,
  offset: number,
  sizeBytes: number,
  fields: { number: number; dateMs: number; body: Body },
): number {
  const { bytes, at } = data.locate(offset, sizeBytes);
  const seed = seedAt(key, offset);
  // Clear the signature and write the body first: a process that is killed in this function then leaves no
  // record. Otherwise a new header in front of the body and trailer of the previous record would be taken for
  // a whole record.
  bytes.writeUInt32LE(0, at + HEADER_OFFSET.signature);
  const end = encodeBody(bytes, at + HEADER_BYTES, fields.body);
  bytes.writeUInt32LE(SIGNATURE_WORD, at + HEADER_OFFSET.signature);
  bytes.writeUInt32LE(TYPE_BYTE[fields.body.type] | (LAYOUT_VERSION << 8), at + HEADER_OFFSET.type);
  writeWide(bytes, at + HEADER_OFFSET.date, fields.dateMs);
  writeWide(bytes, at + HEADER_OFFSET.number, fields.number);
  bytes.writeUInt32LE(sizeBytes - RECORD_OVERHEAD_BYTES, at + HEADER_OFFSET.dataLength);
  const headerSum = checksum(bytes, at, at + HEADER_OFFSET.headerChecksum, seed);
  bytes.writeUInt32LE(headerSum, at + HEADER_OFFSET.headerChecksum);
  const sum = checksum(bytes, at + HEADER_BYTES, end, bodySeed(seed, headerSum));
  bytes.writeUInt32LE(sum, end);
  return sum;
}

/**
 * Erases a record whose bytes may not be on the disk. The record must not be marked as consumed instead: the
 * mark could reach the disk without the record. The new mark would then have replaced the mark of the older
 * record that is still on the disk at this offset, and a message that was consumed long ago would come back.
 */
export function eraseRecord(data: DataBytes, offset: number): void {
  const { bytes, at } = data.locate(offset, HEADER_BYTES);
  bytes.writeUInt32LE(0, at + HEADER_OFFSET.signature);
}

/** Writes a whole number of up to 53 bits as 64 bits, without the cost of a BigInt. */
function writeWide(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value >>> 0, at);
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

const readWide = (bytes: Buffer, at: number): number =>
  bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;

/** The decoded header of a record. */
export interface RecordHeader {
  offset: number;
  number: number;
  dateMs: number;
  type: number;
  /** Size of the whole record, checksums included. */
  sizeBytes: number;
}

/** The header of a record whose checksums are right. */
export interface ValidRecord extends RecordHeader {
  /** Checksum of the body, which the index entry stores too (patent [0019]). */
  checksum: number;
}

/** The content of the data file at a slot boundary. */
export type SlotContent =
  | { state: 'nothing' }
  /** The signature is right, but this queue did not write the header at this offset. */
  | { state: 'foreign' }
  /** The header is right, but the data is torn or has rotted. */
  | { state: 'damaged'; header: RecordHeader }
  | { state: 'valid'; header: ValidRecord };

const NOTHING: SlotContent = { state: 'nothing' };
const FOREIGN: SlotContent = { state: 'foreign' };

/**
 * Reads the header at a slot boundary.
 *
 * @returns undefined when its checksum or version is wrong, or when the record would end beyond the file.
 */
export function readHeader(data: DataBytes, key: ChecksumKey, offset: number): RecordHeader | undefined {
  const { bytes, at } = data.locate(offset, HEADER_BYTES);
  const sum = checksum(bytes, at, at + HEADER_OFFSET.headerChecksum, seedAt(key, offset));
  if (sum !== bytes.readUInt32LE(at + HEADER_OFFSET.headerChecksum)) return undefined;
  const sizeBytes = bytes.readUInt32LE(at + HEADER_OFFSET.dataLength) + RECORD_OVERHEAD_BYTES;
  if (bytes[at + HEADER_OFFSET.version] !== LAYOUT_VERSION || offset + sizeBytes > data.sizeBytes)
    return undefined;
  return {
    offset,
    number: readWide(bytes, at + HEADER_OFFSET.number),
    dateMs: readWide(bytes, at + HEADER_OFFSET.date),
    type: bytes.readUInt8(at + HEADER_OFFSET.type),
    sizeBytes,
  };
}

/**
 * Reads the header at a slot boundary as it was before one of its bits flipped. The result identifies a
 * message that rot has made unreadable. A sender cannot forge such a header, because the checksum is keyed.
 *
 * @returns undefined when no flip of a single bit gives a header of this queue.
 */
export function repairHeader(data: DataBytes, key: ChecksumKey, offset: number): RecordHeader | undefined {
  const { bytes, at } = data.locate(offset, HEADER_BYTES);
  const copy = Buffer.from(bytes.subarray(at, at + HEADER_BYTES));
  const candidate: DataBytes = {
    sizeBytes: data.sizeBytes,
    locate: () => ({ bytes: copy, at: 0 }),
    willNeed: () => undefined,
  };
  for (let bit = 0; bit < HEADER_BYTES * 8; bit += 1) {
    const byte = bit >> 3;
    copy.writeUInt8(copy.readUInt8(byte) ^ (1 << (bit & 7)), byte);
    const header = readHeader(candidate, key, offset);
    if (header) return header;
    copy.writeUInt8(copy.readUInt8(byte) ^ (1 << (bit & 7)), byte);
  }
  return undefined;
}

/**
 * Reads the content of the data file at one slot boundary (patent [0026]). Checks the signature first, because
 * almost all slots fail there.
 */
export function readSlot(data: DataBytes, key: ChecksumKey, offset: number): SlotContent {
  const mapped = data.locate(offset, HEADER_BYTES);
  if (mapped.bytes.readUInt32LE(mapped.at) !== SIGNATURE_WORD) return NOTHING;
  const header = readHeader(data, key, offset);
  if (!header) return FOREIGN;
  const { bytes, at } = data.locate(offset, header.sizeBytes);
  const end = at + header.sizeBytes - 4;
  const headerSum = bytes.readUInt32LE(at + HEADER_OFFSET.headerChecksum);
  const sum = checksum(bytes, at + HEADER_BYTES, end, bodySeed(seedAt(key, offset), headerSum));
  if (sum !== bytes.readUInt32LE(end)) return { state: 'damaged', header };
  // List the fields: with a spread every scan of a queue takes 1.5 times as long.
  const { number, dateMs, type, sizeBytes } = header;
  return { state: 'valid', header: { offset, number, dateMs, type, sizeBytes, checksum: sum } };
}

/** Returns the bytes of the body of a valid record, as a view into the map. */
export function bodyOf(data: DataBytes, header: RecordHeader): Buffer {
  const { bytes, at } = data.locate(header.offset, header.sizeBytes);
  return bytes.subarray(at + HEADER_BYTES, at + header.sizeBytes - 4);
}
