import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { contents } from './fixtures/log-contents.js';
import { WriteLog } from './reader.js';
import { type NewEntry, WriteLogWriter } from './writer.js';

const dir = mkdtempSync(join(tmpdir(), 'plugpull-writer-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
const file = join(dir, 'written.log');

function write(entries: readonly NewEntry[], sectorBytes: number, path = file): void {
  const log = new WriteLogWriter(path, sectorBytes);
  for (const entry of entries) log.add(entry);
  log.close();
}

t.test('any entries are read back as they were written, with sectors of 512 and 4096 bytes', async () => {
  const flags = { flush: fc.boolean(), fua: fc.boolean(), metadata: fc.boolean() };
  const place = fc.nat(2 ** 30);
  const kinds = (size: number) =>
    fc.oneof(
      fc.record({
        offset: place.map((n) => n * size),
        data: fc
          .uint8Array({ minLength: 1, maxLength: 5 })
          .map((bytes) => Buffer.alloc(bytes.length * size, bytes)),
        ...flags,
      }),
      fc.record({
        offset: place.map((n) => n * size),
        discardBytes: fc.integer({ min: 1, max: 2 ** 20 }).map((n) => n * size),
        ...flags,
      }),
      fc.record({ offset: fc.constant(0), mark: fc.stringMatching(/^[ -~]{0,99}$/), ...flags }),
      fc.record({ offset: fc.constant(0), ...flags }),
    );
  const logs = fc
    .constantFrom(512, 4096)
    .chain((size) => fc.tuple(fc.constant(size), fc.array(kinds(size), { maxLength: 12 })));
  fc.assert(
    fc.property(logs, ([size, entries]) => {
      write(entries, size);
      const read = contents(file);
      return (
        read.length === entries.length &&
        read.every(
          (entry, index) => JSON.stringify(sorted(entry)) === JSON.stringify(sorted(entries[index] ?? {})),
        )
      );
    }),
    { numRuns: 100 },
  );
});

function sorted(entry: NewEntry): [string, unknown][] {
  return Object.entries(entry)
    .map(([key, value]): [string, unknown] => [
      key,
      ArrayBuffer.isView(value) ? Buffer.from(value as Uint8Array).toString('hex') : value,
    ])
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

t.test('a reader sees only complete entries while the log is being written', async (t) => {
  const writer = new WriteLogWriter(file);
  const log = new WriteLog(file);
  t.equal(log.completeEntries(), 0);
  writer.add({ offset: 512, data: Buffer.alloc(1024, 7) });
  t.equal(log.completeEntries(), 1);
  writer.add({ flush: true });
  t.match(
    [...log.entries()],
    [
      { offset: 512, lengthBytes: 1024 },
      { flush: true, lengthBytes: 0 },
    ],
  );
  log.close();
  writer.close();
});

t.test('an entry that the format cannot represent is refused', async (t) => {
  const writer = new WriteLogWriter(file);
  t.throws(() => writer.add({ offset: 100 }), /multiples of 512/);
  t.throws(() => writer.add({ data: Buffer.alloc(100) }), /multiples of 512/);
  t.throws(() => writer.add({ mark: 'x'.repeat(481) }), /at most 480/);
  t.throws(() => writer.add({ mark: 'x', data: Buffer.alloc(512) }), /a mark has no data/);
  t.throws(() => writer.add({ discardBytes: 512, data: Buffer.alloc(512) }), /a discard has no data/);
  t.equal(writer.entries, 0);
  writer.close();
  t.equal(statSync(file).size, 512);
});
