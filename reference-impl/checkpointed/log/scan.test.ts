import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import { linux } from '../../common/platform/linux.js';
import { type Test, temporaryDirectory } from '../fixtures/queue.js';
import { Log, type StagedOperation } from './log.js';
import { OPERATION } from './record.js';
import { scanLog } from './scan.js';
import { SegmentRing, segmentPath } from './segment-ring.js';

const SEGMENT_BYTES = 4096;
const key = { low: 11, high: 22 };

const staged = (id: string, body: Buffer): StagedOperation => ({
  operation: OPERATION.put,
  queue: 1,
  number: 0,
  id,
  idBytes: Buffer.byteLength(id),
  body,
  position: 0,
});

interface Written {
  directory: string;
  /** Positions and ends of the transactions, in order. */
  ends: number[];
  position: number;
}

/** Writes transactions of two messages each, one batch each. */
async function written(
  t: Test,
  count: number,
  { generation = 1, position = 0, directory = `${temporaryDirectory(t)}/log`, bodyBytes = 100 } = {},
): Promise<Written> {
  mkdirSync(directory, { recursive: true });
  const ring = new SegmentRing(directory, SEGMENT_BYTES, [], linux);
  const geometry = { directory, segmentBytes: SEGMENT_BYTES, segments: 64, key };
  const log = new Log(geometry, ring, { generation, position }, linux);
  const ends: number[] = [];
  for (let at = 0; at < count; at += 1) {
    await log.append([
      ['a', 'b'].map((part) => staged(`${generation}.${at}${part}`, Buffer.alloc(bodyBytes, part))),
    ]);
    ends.push(log.position);
  }
  log.close();
  return { directory, ends, position: log.position };
}

const scan = (directory: string, generation: number | undefined = 1, from = 0) =>
  scanLog({ directory, segmentBytes: SEGMENT_BYTES, key, from, generation }, linux);
const ids = (directory: string, generation?: number) =>
  scan(directory, generation).records.map(({ id }) => id);
const both = (...numbers: number[]) => numbers.flatMap((at) => [`1.${at}a`, `1.${at}b`]);

t.test(
  'a log that is cut at any byte gives the whole transactions before, and names no damage',
  async (t) => {
    const { directory, ends, position } = await written(t, 4);
    const path = segmentPath(directory, 0);
    const bytes = readFileSync(path);
    const wrong: number[] = [];
    for (let cut = 0; cut <= position; cut += 1) {
      const torn = Buffer.from(bytes);
      torn.fill(0, cut);
      writeFileSync(path, torn);
      const whole = ends.filter((end) => end <= cut || isOnlyPadding(bytes, cut, end)).length;
      const { records, damaged } = scan(directory);
      const expected = both(...Array.from({ length: whole }, (_, at) => at));
      const isSame = records.map(({ id }) => id).join() === expected.join();
      if (!isSame || damaged.some(({ isConfirmed }) => isConfirmed)) wrong.push(cut);
    }
    t.same(wrong, []);
  },
);

const isOnlyPadding = (bytes: Buffer, from: number, to: number) =>
  from > to - 8 && bytes.subarray(from, to).every((byte) => byte === 0);

t.test('damage before the stated position is named, and nothing else is lost', async (t) => {
  const { directory, ends } = await written(t, 4);
  const path = segmentPath(directory, 0);
  const bytes = readFileSync(path);
  const confirmed = ends[2] ?? 0;
  const all = both(0, 1, 2, 3);
  for (let at = 0; at < confirmed; at += 5) {
    const damaged = Buffer.from(bytes);
    damaged[at] = (damaged[at] ?? 0) ^ 0x21;
    writeFileSync(path, damaged);
    const found = scan(directory);
    const lost = all.filter((id) => !found.records.some((record) => record.id === id));
    t.ok(lost.length <= 1, `byte ${at}`);
    t.equal(found.damaged.length, lost.length, `byte ${at}`);
    t.ok(found.damaged.every(({ isConfirmed }) => isConfirmed));
  }
});

t.test(
  'any damage: what is restored was written, in order, and each missing confirmed record is named',
  async (t) => {
    const { directory, ends } = await written(t, 20, { bodyBytes: 300 });
    const paths = [0, 1, 2, 3].map((sequence) => segmentPath(directory, sequence));
    const segments = paths.map((path) => readFileSync(path));
    const all = both(...Array.from({ length: 20 }, (_, at) => at));
    const confirmed = new Set(both(...ends.slice(0, -1).map((_, at) => at)));
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            segment: fc.nat(3),
            at: fc.nat(SEGMENT_BYTES - 1),
            length: fc.integer({ min: 1, max: 900 }),
            byte: fc.nat(255),
          }),
          { minLength: 1, maxLength: 3 },
        ),
        (damages) => {
          const copies = segments.map((bytes) => Buffer.from(bytes));
          for (const { segment, at, length, byte } of damages)
            copies[segment]?.fill(byte, at, Math.min(SEGMENT_BYTES, at + length));
          for (const [at, path] of paths.entries()) writeFileSync(path, copies[at] ?? '');
          const { records, damaged } = scan(directory);
          const found = records.map(({ id }) => id);
          const isInOrder = found.join() === all.filter((id) => found.includes(id)).join();
          const areWhole = records.every(({ id, body }) => body.equals(Buffer.alloc(300, id.slice(-1))));
          // What the last record states: without it, or without those before it, less is known to be confirmed.
          const stated = Math.max(0, ...records.map(({ synced }) => synced));
          const missing = [...confirmed].filter((id) => {
            const transaction = Number(/\.(\d+)/.exec(id)?.[1]);
            return (ends[transaction] ?? 0) <= stated && !found.includes(id);
          });
          return (
            isInOrder && areWhole && (missing.length === 0 || damaged.some(({ isConfirmed }) => isConfirmed))
          );
        },
      ),
      { numRuns: 50 },
    );
  },
);

t.test('a missing segment in front of a later one is named', async (t) => {
  const { directory } = await written(t, 12, { bodyBytes: 400 });
  rmSync(segmentPath(directory, 1));
  const { damaged, records } = scan(directory);
  t.equal(damaged.filter(({ isConfirmed }) => isConfirmed).length, 1);
  t.ok(records.length > 8);
});

t.test('records of another generation do not count, before and behind those that do', async (t) => {
  const { directory } = await written(t, 3);
  await written(t, 2, { generation: 2, position: SEGMENT_BYTES, directory });
  t.same(
    scan(directory, 2, SEGMENT_BYTES).records.map(({ id }) => id),
    ['2.0a', '2.0b', '2.1a', '2.1b'],
  );
  t.same(scan(directory, 2, SEGMENT_BYTES).damaged, []);
  const newest = scanLog({ directory, segmentBytes: SEGMENT_BYTES, key, from: 0 }, linux);
  t.equal(newest.generation, 2);
  t.same(
    newest.records.map(({ generation }) => generation),
    [2, 2, 2, 2],
  );
  t.same(newest.damaged, [], 'what was before the newest generation is no damage');
  t.same(ids(directory, 1), both(0, 1, 2));
});

t.test('segments of an earlier lap, and records inside of message bodies, are no records', async (t) => {
  const inner = await written(t, 1);
  const forged = readFileSync(segmentPath(inner.directory, 0)).subarray(0, inner.position);
  const directory = `${temporaryDirectory(t)}/log`;
  mkdirSync(directory);
  const ring = new SegmentRing(directory, SEGMENT_BYTES, [], linux);
  const log = new Log(
    { directory, segmentBytes: SEGMENT_BYTES, segments: 8, key },
    ring,
    { generation: 1, position: 0 },
    linux,
  );
  await log.append([[staged('outer', forged)]]);
  await log.append([[staged('behind', Buffer.alloc(10))]]);
  log.close();
  t.same(ids(directory), ['outer', 'behind']);
  const path = segmentPath(directory, 0);
  const bytes = readFileSync(path);
  bytes.fill(0, 0, 72);
  writeFileSync(path, bytes);
  t.same(ids(directory), ['behind'], 'the bytes of a sender are not taken for a record');
  t.equal(scan(directory).damaged.length, 1);
  // The same bytes at the place of a later lap.
  const { directory: old } = await written(t, 4);
  writeFileSync(segmentPath(directory, 1), readFileSync(segmentPath(old, 0)));
  t.same(ids(directory), ['behind']);
});

t.test('an empty, a short and a missing log are read', async (t) => {
  const directory = `${temporaryDirectory(t)}/log`;
  mkdirSync(directory);
  t.match(scan(directory), { records: [], damaged: [], nextSequence: 0 });
  for (const length of [0, 1, 7, 71, 4095, 4096, 9000]) {
    writeFileSync(segmentPath(directory, 0), Buffer.alloc(length, 'P'));
    t.match(scan(directory), { records: [], nextSequence: 1 }, `${length} bytes`);
  }
});
