import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { type HandMadeEntry, handMadeLog } from './fixtures/log.js';
import { LogWritesError, WriteLog } from './reader.js';

const dir = mkdtempSync(join(tmpdir(), 'plugpull-log-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
let files = 0;

function fileOf(bytes: Buffer): string {
  const file = join(dir, `${files++}.log`);
  writeFileSync(file, bytes);
  return file;
}

function withLog<T>(bytes: Buffer, use: (log: WriteLog) => T): T {
  const log = new WriteLog(fileOf(bytes));
  try {
    return use(log);
  } finally {
    log.close();
  }
}

function failure(act: () => unknown): LogWritesError {
  try {
    act();
  } catch (error) {
    if (error instanceof LogWritesError) return error;
    throw error;
  }
  throw new Error('expected a LogWritesError');
}

t.test('every kind of entry is read with its flags, position and data', async (t) => {
  const bytes = handMadeLog([
    { sector: 8, sectors: 2, fill: 7 },
    { flags: ['flush'] },
    { sector: 16, sectors: 1, fill: 9, flags: ['flush', 'fua', 'metadata'] },
    { sector: 100, sectors: 5000, flags: ['discard'] },
    { flags: ['mark'], mark: 'here' },
    { sector: 1, sectors: 1, fill: 3 },
  ]);
  withLog(bytes, (log) => {
    const entries = [...log.entries()];
    t.match(entries, [
      { index: 0, offset: 4096, lengthBytes: 1024, flush: false, fua: false, discard: false },
      { index: 1, lengthBytes: 0, flush: true },
      { index: 2, offset: 8192, lengthBytes: 512, flush: true, fua: true, metadata: true },
      { index: 3, offset: 51_200, lengthBytes: 2_560_000, discard: true },
      { index: 4, mark: 'here', lengthBytes: 0 },
      { index: 5, offset: 512, lengthBytes: 512, mark: undefined },
    ]);
    const last = Buffer.alloc(512);
    const [entry] = entries.slice(-1);
    if (entry) log.readData(entry, 0, last);
    t.same(last, Buffer.alloc(512, 3), 'the data of the entry after a discard, which has no data');
  });
});

t.test('only complete entries are read, and new entries of a growing log are read later', async (t) => {
  const entries: HandMadeEntry[] = [{ sectors: 1, fill: 1 }, { flags: ['flush'] }, { sectors: 1, fill: 2 }];
  const file = fileOf(handMadeLog(entries, 2));
  const log = new WriteLog(file);
  t.equal(log.completeEntries(), 2);
  t.equal([...log.entries()].length, 2);
  writeFileSync(file, handMadeLog(entries, 3));
  t.equal([...log.entries()].length, 3);
  t.equal([...log.entries(1)].length, 1);
  log.close();
});

t.test('any entries are read back as they were written', async () => {
  const entry = fc.record({
    sector: fc.nat(1_000_000),
    sectors: fc.nat(40),
    fill: fc.nat(255),
    flags: fc.subarray(['flush', 'fua', 'metadata'] as const),
  });
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 30 }), (entries) =>
      withLog(handMadeLog(entries), (log) => {
        const read = [...log.entries()];
        return (
          read.length === entries.length &&
          read.every(({ offset, lengthBytes, flush, fua }, index) => {
            const made = entries[index];
            return (
              offset === (made?.sector ?? 0) * 512 &&
              lengthBytes === (made?.sectors ?? 0) * 512 &&
              flush === made?.flags.includes('flush') &&
              fua === made.flags.includes('fua')
            );
          })
        );
      }),
    ),
    { numRuns: 100 },
  );
});

t.test('a file that is not a log, or a log of another version, is reported as foreign', async (t) => {
  t.match(
    failure(() => withLog(Buffer.alloc(512), () => {})),
    { code: 'foreign', message: /its mark is missing/ },
  );
  const other = handMadeLog([]);
  other.writeBigUInt64LE(2n, 8);
  t.match(
    failure(() => withLog(other, () => {})),
    { code: 'foreign', message: /version 1 .* found 2/ },
  );
});

t.test('a log that ends too early is reported as truncated, wherever it ends', async (t) => {
  t.match(
    failure(() => withLog(Buffer.alloc(0), () => {})),
    { code: 'truncated', message: /has 0 bytes/ },
  );
  const bytes = handMadeLog([
    { sectors: 2, fill: 1 },
    { sectors: 1, fill: 2 },
  ]);
  for (const length of [512, 520, 1024, 1536, 2047, 2048, 2060, 2560, 3071]) {
    const file = fileOf(bytes);
    truncateSync(file, length);
    const log = new WriteLog(file);
    const expected =
      length < 2048 ? /within entry 0, expected 2 entries/ : /within entry 1, expected 2 entries/;
    t.match(
      failure(() => [...log.entries()]),
      { code: 'truncated', message: expected },
      `${length} bytes`,
    );
    log.close();
  }
});

t.test('an impossible entry is reported as damaged, with its position', async (t) => {
  const spoil = (at: number, value: bigint): Buffer => {
    const bytes = handMadeLog([{ sectors: 1 }, { sectors: 1 }]);
    bytes.writeBigUInt64LE(value, 512 + 1024 + at);
    return bytes;
  };
  const cases: [number, bigint][] = [
    [0, 2n ** 62n],
    [8, 2n ** 60n],
    [16, 64n],
    [24, 5n],
  ];
  for (const [at, value] of cases) {
    const error = failure(() => withLog(spoil(at, value), (log) => [...log.entries()]));
    t.match(error, { code: 'damaged', message: /entry 1 at byte 1536 cannot be/ });
  }
  const sectors = handMadeLog([]);
  sectors.writeUInt32LE(513, 24);
  t.match(
    failure(() => withLog(sectors, () => {})),
    { code: 'damaged', message: /sectors of 513 bytes/ },
  );
});
