import { crc32 } from 'node:zlib';
import { crc32c } from '@node-rs/crc32';
import fc from 'fast-check';
import t from 'tap';
import { MemoryData } from '../../common/platform/fixtures/memory-data.js';
import { type ChecksumKey, checksum, scramble } from '../../common/record/checksum.js';
import { scan } from '../restore/scan.js';
import { decodeBody } from './codec.js';
import { RING_START } from './data-file.js';
import { forge, KEY, putRecord, smtp } from './fixtures/memory-data.js';
import { extentOf, HEADER_BYTES, SLOT_BYTES } from './layout.js';
import { bodyOf, readSlot, recordBytes, writeRecord } from './record.js';
import { seedAt } from './seed.js';

const RING_BYTES = 64 * SLOT_BYTES;
const ring = { start: RING_START, end: RING_START + RING_BYTES };
const newData = () => new MemoryData(RING_START + RING_BYTES + 4096);
const slotOf = (index: number) => RING_START + index * SLOT_BYTES;
const bytesOf = (max: number) => fc.uint8Array({ maxLength: max }).map((bytes) => Buffer.from(bytes));

t.test('a record is read as it was written: number, date, type, body', async (t) => {
  fc.assert(
    fc.property(bytesOf(3000), fc.nat(40), fc.nat(2 ** 31), (bytes, slot, low) => {
      const data = newData();
      const number = 7 * 2 ** 32 + low;
      const body = smtp(bytes);
      const sizeBytes = putRecord(data, KEY, slotOf(slot), number, body);
      const found = readSlot(data, KEY, slotOf(slot));
      if (found.state !== 'valid') return false;
      t.strictSame(decodeBody(found.header.type, bodyOf(data, found.header)), body);
      const { number: n, dateMs, type } = found.header;
      t.strictSame({ n, dateMs, type }, { n: number, dateMs: 1_700_000_000_000, type: 1 });
      return found.header.sizeBytes === sizeBytes && sizeBytes === recordBytes(body);
    }),
    { numRuns: 100 },
  );
});

t.test('every flipped bit of a record is detected', async (t) => {
  const data = newData();
  const sizeBytes = putRecord(data, KEY, slotOf(3), 2 ** 32, smtp('x'.repeat(300)));
  const states = { nothing: 0, foreign: 0, damaged: 0, valid: 0 };
  for (let bit = 0; bit < sizeBytes * 8; bit += 1) {
    const at = slotOf(3) + (bit >> 3);
    const was = data.bytes.readUInt8(at);
    data.bytes.writeUInt8(was ^ (1 << (bit & 7)), at);
    states[readSlot(data, KEY, slotOf(3)).state] += 1;
    data.bytes.writeUInt8(was, at);
  }
  t.same(states, {
    nothing: 32,
    foreign: (HEADER_BYTES - 4) * 8,
    damaged: (sizeBytes - HEADER_BYTES) * 8,
    valid: 0,
  });
  t.equal(readSlot(data, KEY, slotOf(3)).state, 'valid', 'the record is valid when all bits are restored');
});

t.test('a torn record is never valid, whichever part of it is zero or holds old bytes', async () => {
  fc.assert(
    fc.property(
      bytesOf(2500),
      bytesOf(2500),
      fc.nat(),
      fc.nat(),
      fc.boolean(),
      (first, second, a, b, zero) => {
        const data = newData();
        const older = putRecord(data, KEY, slotOf(0), 2 ** 32, smtp(first));
        const before = Buffer.from(data.bytes);
        const newer = putRecord(data, KEY, slotOf(0), 2 ** 32 + 1, smtp(second));
        const whole = Buffer.from(data.bytes);
        const from = slotOf(0) + (a % newer);
        const to = Math.min(slotOf(0) + newer, from + 1 + (b % newer));
        if (zero) data.bytes.fill(0, from, to);
        else before.copy(data.bytes, from, from, to);
        const found = readSlot(data, KEY, slotOf(0));
        if (found.state !== 'valid') return true;
        const same = found.header.number === 2 ** 32 ? before : whole;
        const sizeBytes = found.header.number === 2 ** 32 ? older : newer;
        return data.bytes
          .subarray(slotOf(0), slotOf(0) + sizeBytes)
          .equals(same.subarray(slotOf(0), slotOf(0) + sizeBytes));
      },
    ),
    { numRuns: 300 },
  );
});

t.test('a killed writer leaves the old record, the new one or none, and never a mixture', async (t) => {
  const body = (text: string) => smtp(text.repeat(30));
  /** Copies of the data file, one after every store of the writer. */
  const moments: Buffer[] = [];
  const data = newData();
  putRecord(data, KEY, slotOf(0), 2 ** 32, body('old'));
  const before = Buffer.from(data.bytes);
  const watched = new Proxy(data.bytes, {
    get(bytes, name) {
      const member: unknown = Reflect.get(bytes, name, bytes);
      if (typeof member !== 'function') return member;
      return (...given: unknown[]): unknown => {
        const result: unknown = Reflect.apply(member, bytes, given);
        moments.push(Buffer.from(bytes));
        return result;
      };
    },
  });
  const sizeBytes = recordBytes(body('new'));
  const place = { sizeBytes: data.sizeBytes, willNeed: () => undefined };
  writeRecord({ ...place, locate: (at: number) => ({ bytes: watched, at }) }, KEY, slotOf(0), sizeBytes, {
    number: 2 ** 32 + 1,
    dateMs: 0,
    body: body('new'),
  });
  const whole = Buffer.from(data.bytes);
  const states = moments.map((bytes) => {
    const found = readSlot(new MemoryData(bytes), KEY, slotOf(0));
    if (found.state !== 'valid') return found.state;
    return bytes.equals(whole) ? 'new' : bytes.equals(before) ? 'old' : 'mixture';
  });
  t.notOk(states.includes('mixture'));
  t.ok(states.includes('nothing') && states.at(-1) === 'new', states.join(' '));
});

t.test('a record that is copied to another offset or read with another key is not valid', async (t) => {
  const data = newData();
  const sizeBytes = putRecord(data, KEY, slotOf(1), 2 ** 32, smtp('hello'));
  for (let slot = 2; slot < 60; slot += 1) {
    data.bytes.copy(data.bytes, slotOf(slot), slotOf(1), slotOf(1) + sizeBytes);
    t.equal(readSlot(data, KEY, slotOf(slot)).state, 'foreign');
  }
  fc.assert(
    fc.property(fc.nat(2 ** 32 - 1), fc.nat(2 ** 32 - 1), (low, high) => {
      if (low === KEY.low && high === KEY.high) return true;
      return readSlot(data, { low, high }, slotOf(1)).state !== 'valid';
    }),
  );
});

t.test('a header whose record would end beyond the end of the file is not valid', async (t) => {
  const data = newData();
  const last = slotOf(63);
  putRecord(data, KEY, slotOf(40), 2 ** 32, smtp('x'.repeat(2000)));
  const short = new MemoryData(data.bytes.subarray(0, slotOf(44)));
  t.equal(readSlot(short, KEY, slotOf(40)).state, 'foreign');
  t.equal(readSlot(data, KEY, last).state, 'nothing');
});

/** Forgeries by a sender that knows the format but not the key. */
const forgeries: Record<string, (offset: number) => Buffer> = {
  'another queue’s key': (offset) => {
    const other: ChecksumKey = { low: 1, high: 2 };
    return forge(offset, smtp('forged'), crc32c, seedAt(other, offset));
  },
  'CRC-32C without key': (offset) => forge(offset, smtp('forged'), (bytes) => crc32c(bytes)),
  'CRC-32C from zero key': (offset) => forge(offset, smtp('forged'), crc32c),
  'IEEE CRC': (offset) => forge(offset, smtp('forged'), (bytes) => crc32(bytes)),
  'IEEE CRC, seeded': (offset) => forge(offset, smtp('forged'), (bytes, seed) => crc32(bytes, seed)),
  'no checksum': (offset) => forge(offset, smtp('forged'), () => 0),
};

t.test(
  'a forged record inside a message body is never found, even when the outer record is torn',
  async (t) => {
    // The message data begins 32 + 4 + 13 + 4 + 13 + 4 bytes into the record.
    const bodyAt = 70;
    let torn = 0;
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 20 }), fc.constantFrom(...Object.keys(forgeries))), {
          minLength: 1,
          maxLength: 12,
        }),
        fc.nat(30),
        fc.nat(),
        (planted, slot, spot) => {
          const data = newData();
          const body = Buffer.alloc(22 * SLOT_BYTES);
          for (const [inner, how] of planted) {
            const bytes = (forgeries[how] as (offset: number) => Buffer)(slotOf(slot + inner));
            bytes.copy(body, inner * SLOT_BYTES - bodyAt);
          }
          const sizeBytes = putRecord(data, KEY, slotOf(slot), 2 ** 32, smtp(body));
          const offsets = () => scan(data, ring, KEY).valid.map(({ offset }) => offset);
          if (offsets().join() !== `${slotOf(slot)}`)
            throw new Error('the scan did not find exactly the outer record');
          data.bytes.writeUInt8(
            data.bytes.readUInt8(slotOf(slot) + (spot % sizeBytes)) ^ 16,
            slotOf(slot) + (spot % sizeBytes),
          );
          if (offsets().length !== 0) throw new Error('the scan found a record inside a torn record');
          torn += 1;
        },
      ),
      { numRuns: 150 },
    );
    t.equal(torn, 150);
  },
);

t.test('a copy of a record of the same queue inside a message body is not found', async (t) => {
  const data = newData();
  const sizeBytes = putRecord(data, KEY, slotOf(20), 2 ** 32, smtp('stolen'));
  const body = Buffer.alloc(20 * SLOT_BYTES);
  data.bytes.copy(body, SLOT_BYTES - 70, slotOf(20), slotOf(20) + sizeBytes);
  data.bytes.fill(0, slotOf(20), slotOf(22));
  putRecord(data, KEY, slotOf(5), 2 ** 32 + 1, smtp(body));
  t.same(
    scan(data, ring, KEY).valid.map(({ offset }) => offset),
    [slotOf(5)],
  );
  data.bytes.fill(0, slotOf(5), slotOf(5) + 8);
  t.same(scan(data, ring, KEY).valid, [], 'the copy is not found when the record around it is torn');
});

t.test('the scan finds consecutive records, and the old records below a torn one', async (t) => {
  const data = newData();
  let at = ring.start;
  const written: number[] = [];
  for (let number = 0; number < 12; number += 1) {
    written.push(at);
    at += extentOf(putRecord(data, KEY, at, 2 ** 32 + number, smtp('y'.repeat(number * 60))));
  }
  t.same(
    scan(data, ring, KEY).valid.map(({ offset }) => offset),
    written,
  );
  const before = Buffer.from(data.bytes);
  putRecord(data, KEY, slotOf(0), 2 ** 32 + 99, smtp('z'.repeat(700)));
  before.copy(data.bytes, slotOf(1), slotOf(1));
  t.same(
    scan(data, ring, KEY).valid.map(({ offset }) => offset),
    written.filter((offset) => offset > slotOf(0)),
  );
});

t.test('no two 32-bit words are scrambled to the same word', async (t) => {
  const seen = new Set<number>();
  for (let word = 0; word < 100_000; word += 1) seen.add(scramble(word * 42_949));
  t.equal(seen.size, 100_000);
});

t.test('the header of one record and the body of another do not make a valid record', async (t) => {
  const offset = slotOf(3);
  let mixed = 0;
  fc.assert(
    fc.property(fc.nat(2 ** 31), fc.nat(2 ** 31), fc.boolean(), (first, second, newHeader) => {
      fc.pre(first !== second);
      const data = newData();
      const sizeBytes = putRecord(data, KEY, offset, 2 ** 32 + first, smtp('the old body of a record'));
      const older = Buffer.from(data.bytes.subarray(offset, offset + sizeBytes));
      putRecord(data, KEY, offset, 2 ** 32 + second, smtp('the new body of a record'));
      if (newHeader) older.copy(data.bytes, offset + HEADER_BYTES, HEADER_BYTES);
      else older.copy(data.bytes, offset, 0, HEADER_BYTES);
      if (readSlot(data, KEY, offset).state === 'valid') throw new Error('a mixture was taken for a record');
      mixed += 1;
    }),
    { numRuns: 200 },
  );
  t.ok(mixed >= 200, 'each run made a mixture');
});

t.test('the checksum is CRC-32C whatever the length, as the library computes it', async (t) => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.nat(20),
      fc.integer({ min: 0, max: 2 ** 32 - 1 }),
      (bytes, from, seed) => {
        const buffer = Buffer.from(bytes);
        const start = Math.min(from, buffer.length);
        return checksum(buffer, start, buffer.length, seed) === crc32c(buffer.subarray(start), seed);
      },
    ),
  );
  t.equal(
    checksum(Buffer.from('123456789'), 0, 9, 0),
    0xe3069283,
    'the checksum of the standard test input is right',
  );
});
