import { crc32c } from '@node-rs/crc32';
import { KitError } from '../errors.js';
import type { RandomInts } from './random-ints.js';

const SLOT_BYTES = 256;
/** Odd, so that 256 forgeries in a row begin at every distance from a slot boundary there is. */
const PERIOD_BYTES = 2 * SLOT_BYTES + 1;
const HEADER_BYTES = 32;
const SENDER = 'forger@plugpull.test';
const RECIPIENT = 'victim@plugpull.test';
const MAX_TRIES = 1000;
const PADDING_COUNT = 12;

/**
 * A body that is full of what a scan of a queue data file looks for: records with signature, header, lengths and
 * checksums as a sender without the queue's secret would make them. Wherever the body comes to lie, one of them starts
 * on a slot boundary. `inner` is the message inside: delivered by itself, it is one that was never submitted.
 * The records hold NUL bytes, as real ones do.
 */
export function forgedRecords(inner: (padding: number) => Buffer, random: RandomInts): Buffer {
  // Two things in a record may hold a CR or LF byte, whatever else is drawn: its lengths, and its last checksum, for behind
  // its own checksum a CRC is in the same state for every header. One in thirty messages meets that; another padding has others.
  const inners = Array.from({ length: PADDING_COUNT }, (_, padding) => inner(padding));
  const units = Array.from({ length: SLOT_BYTES }, () => forgedUnit(inners, random));
  return Buffer.concat(units);
}

/** One forged record and its padding; has no bare CR or LF, which SMTP could not carry. */
function forgedUnit(inners: readonly Buffer[], random: RandomInts): Buffer {
  const unit = Buffer.alloc(PERIOD_BYTES);
  let bareLineEnd = -1;
  for (let tries = 0; tries < MAX_TRIES; tries += 1) {
    const record = forgedRecord(inners[tries % inners.length] ?? Buffer.alloc(0), random);
    unit.fill(0x78);
    record.copy(unit);
    unit.write('\r\n', PERIOD_BYTES - 2);
    bareLineEnd = bareLineEndAt(unit);
    if (bareLineEnd < 0) return unit;
  }
  const around = unit.toString('hex', Math.max(0, bareLineEnd - 8), bareLineEnd + 8);
  throw new KitError(
    'assertion',
    `invariant broken: some forged record has no bare line ends; the last of ${MAX_TRIES} has one at ${bareLineEnd}, in ${around}`,
  );
}

function forgedRecord(inner: Buffer, random: RandomInts): Buffer {
  const body = Buffer.concat([
    lengthPrefixed(Buffer.from(SENDER)),
    lengthPrefixed(Buffer.from(RECIPIENT)),
    lengthPrefixed(inner),
  ]);
  const record = Buffer.alloc(HEADER_BYTES + body.length + 4);
  record.set([252, 88, 132, 133, 1, 1, 0, 0]);
  record.writeBigUInt64LE(BigInt(1_700_000_000_000 + random.int(2 ** 31)), 8);
  record.writeBigUInt64LE(BigInt(random.int(2 ** 24)), 16);
  record.writeUInt32LE(body.length, 24);
  record.writeUInt32LE(crc32c(record.subarray(0, 28)), 28);
  record.set(body, HEADER_BYTES);
  record.writeUInt32LE(crc32c(record.subarray(0, -4)), record.length - 4);
  return record;
}

function lengthPrefixed(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** Where a CR is not followed by LF, or an LF not preceded by CR; -1 when nowhere. */
export function bareLineEndAt(bytes: Buffer): number {
  for (let at = bytes.indexOf(0x0d); at >= 0; at = bytes.indexOf(0x0d, at + 1)) {
    if (bytes[at + 1] !== 0x0a) return at;
  }
  for (let at = bytes.indexOf(0x0a); at >= 0; at = bytes.indexOf(0x0a, at + 1)) {
    if (bytes[at - 1] !== 0x0d) return at;
  }
  return -1;
}
