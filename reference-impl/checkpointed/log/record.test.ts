import fc from 'fast-check';
import t from 'tap';
import { type LogRecord, OPERATION, putRecord, readRecord, recordExtent } from './record.js';

const key = { low: 0xcafebabe, high: 0x1234567 };
const record: LogRecord = {
  position: 2 ** 40 + 8,
  synced: 2 ** 40,
  transaction: 2 ** 40 + 8,
  queue: 2 ** 33,
  number: 2 ** 50,
  generation: 5,
  operation: OPERATION.put,
  isLast: true,
  id: 'id-ä',
  body: Buffer.from('body'),
};

function written(one: LogRecord): Buffer {
  const bytes = Buffer.alloc(recordExtent(Buffer.byteLength(one.id), one.body.length));
  putRecord(bytes, 0, one, Buffer.byteLength(one.id), key);
  return bytes;
}

t.test('any record is read as it was written', async (t) => {
  const position = fc.nat({ max: 2 ** 31 - 1 }).map((place) => place * 2 ** 20);
  fc.assert(
    fc.property(
      fc.record({
        position,
        synced: position,
        transaction: position,
        queue: position,
        number: position,
        generation: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
        operation: fc.constantFrom(...Object.values(OPERATION)),
        isLast: fc.boolean(),
        id: fc.string({ unit: 'grapheme', maxLength: 60 }),
        body: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
      }),
      (one) => {
        const found = readRecord(written(one), 0, one.position, key);
        return found.state === 'valid' && JSON.stringify(found.record) === JSON.stringify(one);
      },
    ),
    { numRuns: 300 },
  );
  t.equal(readRecord(written(record), 0, record.position, key).state, 'valid');
});

t.test('a record that is cut or damaged at any byte is not valid', async (t) => {
  const bytes = written(record);
  const length = 72 + Buffer.byteLength(record.id) + record.body.length;
  for (let at = 0; at < bytes.length; at += 1) {
    const isUnused = (at >= 68 && at < 72) || at >= length;
    const damaged = Buffer.from(bytes);
    damaged[at] = (damaged[at] ?? 0) ^ 0x80;
    t.equal(readRecord(damaged, 0, record.position, key).state === 'valid', isUnused, `byte ${at}`);
    if (at < length) t.not(readRecord(bytes.subarray(0, at), 0, record.position, key).state, 'valid');
    const torn = Buffer.from(bytes);
    torn.fill(0, at);
    t.equal(readRecord(torn, 0, record.position, key).state === 'valid', at >= length, `torn at ${at}`);
  }
});

t.test('a record is none at another place, of another key, or with the body of another one', async (t) => {
  const bytes = written(record);
  for (const position of [8, record.position + 8, record.position - 2 ** 40])
    t.equal(readRecord(bytes, 0, position, key).state, 'none');
  t.equal(readRecord(bytes, 0, record.position, { ...key, low: 1 }).state, 'none');
  t.equal(readRecord(bytes, 0, record.position, { ...key, high: 1 }).state, 'none');
  const other = written({ ...record, number: 4 });
  bytes.copy(other, 72, 72);
  bytes.copy(other, 64, 64, 68);
  t.equal(readRecord(other, 0, record.position, key).state, 'damaged', 'the body belongs to its header');
});
