import { bodySeed, type ChecksumKey, checksum, scramble } from '../../common/record/checksum.js';
import { getWide, highWord, putWide, roundUp } from '../files.js';

/**
 * A record of the log. Little-endian:
 *
 *      0  4  "PPCR"
 *      4  4  length of header, id and body in bytes; the next record begins at the next multiple of 8
 *      8  8  position of the record in the log
 *     16  8  position up to which the log was synced when the record was written
 *     24  8  transaction: position of its first record
 *     32  8  queue
 *     40  8  number of the message that is consumed
 *     48  4  generation of the log
 *     52  4  length of the body in bytes
 *     56  2  length of the id in bytes
 *     58  1  operation
 *     59  1  1: the last record of its transaction, which commits it
 *     60  4  keyed CRC-32C of bytes 0-59
 *     64  4  keyed CRC-32C of id and body
 *     68  4  0
 *     72     id, body
 *
 * A position is an offset in the endless log. Segment n has the positions from n times the size of a segment on. A record
 * lies in one segment. Both checksums depend on key, generation and position. So a recovery accepts neither an old record
 * of an earlier lap of the ring at the same place, nor bytes that a sender has put into a message.
 */
export interface LogRecord {
  position: number;
  synced: number;
  transaction: number;
  queue: number;
  number: number;
  generation: number;
  operation: Operation;
  isLast: boolean;
  /** Id of the message, or name of the queue. */
  id: string;
  /** The message, or the definition of the queue as JSON. */
  body: Buffer;
}

/** The operations of the log. `note` states what is synced, and `pad` fills a segment up. Neither belongs to a transaction. */
export const OPERATION = { put: 1, consume: 2, create: 3, change: 4, delete: 5, note: 6, pad: 7 } as const;
export type Operation = (typeof OPERATION)[keyof typeof OPERATION];

export const RECORD_HEADER_BYTES = 72;
/** Unit of record positions, in bytes. */
export const RECORD_UNIT_BYTES = 8;
/** First bytes of each record. */
export const RECORD_MAGIC = Buffer.from('PPCR');
const MAGIC_WORD = RECORD_MAGIC.readUInt32LE(0);

/** The fields that the checksums depend on besides the bytes. */
export interface RecordSeed {
  key: ChecksumKey;
  generation: number;
}

function seedAt({ key, generation }: RecordSeed, position: number): number {
  const place = position / RECORD_UNIT_BYTES;
  // The bit operations take a number modulo 2^32.
  const low = scramble(key.low ^ place);
  return scramble(scramble(low ^ highWord(place)) ^ key.high ^ scramble(generation));
}

/** Returns the bytes from one record to the next. */
export const extentOf = (lengthBytes: number): number => roundUp(lengthBytes, RECORD_UNIT_BYTES);

/** Returns the extent of a record with this id and body, in bytes. */
export const recordExtent = (idBytes: number, bodyBytes: number): number =>
  extentOf(RECORD_HEADER_BYTES + idBytes + bodyBytes);

/** Writes a record into `bytes` at `at`. @param idBytes length of its id as UTF-8. @returns its extent */
export function putRecord(
  bytes: Buffer,
  at: number,
  record: LogRecord,
  idBytes: number,
  key: ChecksumKey,
): number {
  const length = RECORD_HEADER_BYTES + idBytes + record.body.length;
  bytes.writeUInt32LE(MAGIC_WORD, at);
  bytes.writeUInt32LE(length, at + 4);
  putWide(bytes, at + 8, record.position);
  putWide(bytes, at + 16, record.synced);
  putWide(bytes, at + 24, record.transaction);
  putWide(bytes, at + 32, record.queue);
  putWide(bytes, at + 40, record.number);
  bytes.writeUInt32LE(record.generation, at + 48);
  bytes.writeUInt32LE(record.body.length, at + 52);
  bytes.writeUInt16LE(idBytes, at + 56);
  bytes.writeUInt8(record.operation, at + 58);
  bytes.writeUInt8(record.isLast ? 1 : 0, at + 59);
  const seed = seedAt({ key, generation: record.generation }, record.position);
  const headerSum = checksum(bytes, at, at + 60, seed);
  bytes.writeUInt32LE(headerSum, at + 60);
  const idAt = at + RECORD_HEADER_BYTES;
  if (idBytes > 0) bytes.write(record.id, idAt, 'utf8');
  bytes.set(record.body, idAt + idBytes);
  const idSum = checksum(bytes, idAt, idAt + idBytes, bodySeed(seed, headerSum));
  bytes.writeUInt32LE(checksum(record.body, 0, record.body.length, idSum), at + 64);
  bytes.writeUInt32LE(0, at + 68);
  const extent = extentOf(length);
  for (let unused = at + length; unused < at + extent; unused += 1) bytes[unused] = 0;
  return extent;
}

/** Result of reading a place of the log. `damaged`: the header is intact, id or body are not. */
export type FoundRecord =
  | { state: 'valid'; record: LogRecord; extent: number }
  | { state: 'damaged'; record: LogRecord; extent: number }
  | { state: 'none' };

const NONE: FoundRecord = { state: 'none' };

/**
 * Reads the record at `at` of a segment.
 * @param position position of this place in the log.
 * @returns a record of any generation; its body refers to `segment`.
 */
export function readRecord(segment: Buffer, at: number, position: number, key: ChecksumKey): FoundRecord {
  if (at + RECORD_HEADER_BYTES > segment.length || segment.readUInt32LE(at) !== MAGIC_WORD) return NONE;
  const length = segment.readUInt32LE(at + 4);
  if (length < RECORD_HEADER_BYTES || at + length > segment.length) return NONE;
  if (getWide(segment, at + 8) !== position) return NONE;
  const generation = segment.readUInt32LE(at + 48);
  const seed = seedAt({ key, generation }, position);
  const headerSum = checksum(segment, at, at + 60, seed);
  if (headerSum !== segment.readUInt32LE(at + 60)) return NONE;
  const idAt = at + RECORD_HEADER_BYTES;
  const bodyAt = idAt + segment.readUInt16LE(at + 56);
  const isIntact =
    checksum(segment, idAt, at + length, bodySeed(seed, headerSum)) === segment.readUInt32LE(at + 64);
  const record: LogRecord = {
    position,
    synced: getWide(segment, at + 16),
    transaction: getWide(segment, at + 24),
    queue: getWide(segment, at + 32),
    number: getWide(segment, at + 40),
    generation,
    operation: segment.readUInt8(at + 58) as Operation,
    isLast: segment.readUInt8(at + 59) === 1,
    id: segment.toString('utf8', idAt, bodyAt),
    body: segment.subarray(bodyAt, at + length),
  };
  return { state: isIntact ? 'valid' : 'damaged', record, extent: extentOf(length) };
}
