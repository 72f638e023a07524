import { crc32c } from '@node-rs/crc32';
import { KitError } from '../errors.js';
import type { RandomInts } from './random-ints.js';

/**
 * Content that a protocol can carry: any bytes, or 8bit data in the sense of RFC 2045, section 2.8, without NUL bytes.
 */
export type BodyContent = 'binary' | '8bit';

const SLOT_BYTES = 256;
/**
 * Distance between forged records. It is odd, so that 256 records in a row begin at every offset from a slot
 * boundary.
 */
const PERIOD_BYTES = 2 * SLOT_BYTES + 1;
const HEADER_BYTES = 32;
const SENDER = 'forger@plugpull.test';
const RECIPIENT = 'victim@plugpull.test';
const MAX_TRIES = 1000;
const PADDING_COUNT = 12;

/**
 * Makes a body that is full of forged records of a queue data file: with signature, header, lengths and
 * checksums, as a sender without the queue's secret could make them. At any position of the body in the file,
 * one record starts on a slot boundary. A recovery must not deliver them.
 * @param inner makes the message inside a record, which was never submitted; `padding` changes its length.
 * @param content `binary`: the records are byte for byte like real ones, with NUL bytes. `8bit`: a NUL byte is
 * replaced by 1, because 8bit data must not contain NUL bytes (RFC 2045, section 2.8). Signature and checksums are
 * still valid, and the lengths point far behind the end of the record.
 */
export function forgedRecords(
  inner: (padding: number) => Buffer,
  random: RandomInts,
  content: BodyContent,
): Buffer {
  // Try several paddings. Two parts of a record can hold a CR or LF byte that no other random choice removes:
  // its lengths, and its last checksum, because a CRC has the same state after its own checksum for every
  // header. This happens in one of thirty messages. Another padding has other lengths and another checksum.
  const inners = Array.from({ length: PADDING_COUNT }, (_, padding) => inner(padding));
  const units = Array.from({ length: SLOT_BYTES }, () => forgedUnit(inners, random, content));
  return Buffer.concat(units);
}

/** Makes one forged record with its padding, without bytes that `content` forbids, and without a bare CR or LF. */
function forgedUnit(inners: readonly Buffer[], random: RandomInts, content: BodyContent): Buffer {
  const unit = Buffer.alloc(PERIOD_BYTES);
  let forbidden = -1;
  for (let tries = 0; tries < MAX_TRIES; tries += 1) {
    const record = forgedRecord(inners[tries % inners.length] ?? Buffer.alloc(0), random, content);
    unit.fill(0x78);
    record.copy(unit);
    unit.write('\r\n', PERIOD_BYTES - 2);
    forbidden = Math.max(bareLineEndAt(unit), content === '8bit' ? unit.indexOf(0) : -1);
    if (forbidden < 0) return unit;
  }
  const around = unit.toString('hex', Math.max(0, forbidden - 8), forbidden + 8);
  throw new KitError(
    'assertion',
    `invariant broken: some forged record has no forbidden byte; the last of ${MAX_TRIES} has one at ${forbidden}, in ${around}`,
  );
}

/**
 * Makes a record in the layout of the synchronous reference implementation, little-endian: signature 4 bytes, version, type
 * and 2 zero bytes, time 8, number 8, length of the body 4, CRC-32C of these 28 bytes, body, CRC-32C of
 * everything before.
 */
function forgedRecord(inner: Buffer, random: RandomInts, content: BodyContent): Buffer {
  const allowed = (bytes: Buffer) => (content === '8bit' ? bytes.map((byte) => byte || 1) : bytes);
  const body = Buffer.concat([
    ...[Buffer.from(SENDER), Buffer.from(RECIPIENT), inner].flatMap((bytes) => [
      allowed(lengthOf(bytes)),
      bytes,
    ]),
  ]);
  const record = Buffer.alloc(HEADER_BYTES + body.length + 4);
  record.set([252, 88, 132, 133, 1, 1, 0, 0]);
  record.writeBigUInt64LE(BigInt(1_700_000_000_000 + random.int(2 ** 31)), 8);
  record.writeBigUInt64LE(BigInt(random.int(2 ** 24)), 16);
  record.writeUInt32LE(body.length, 24);
  record.set(allowed(record.subarray(0, 28)));
  record.writeUInt32LE(crc32c(record.subarray(0, 28)), 28);
  record.set(body, HEADER_BYTES);
  record.writeUInt32LE(crc32c(record.subarray(0, -4)), record.length - 4);
  return record;
}

function lengthOf(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return length;
}

/** Returns the offset of a CR without a following LF, or of an LF without a preceding CR; -1 if there is none. */
export function bareLineEndAt(bytes: Buffer): number {
  for (let at = bytes.indexOf(0x0d); at >= 0; at = bytes.indexOf(0x0d, at + 1)) {
    if (bytes[at + 1] !== 0x0a) return at;
  }
  for (let at = bytes.indexOf(0x0a); at >= 0; at = bytes.indexOf(0x0a, at + 1)) {
    if (bytes[at - 1] !== 0x0d) return at;
  }
  return -1;
}
