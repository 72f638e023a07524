import { mkdirSync, readdirSync } from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import type { Kernel } from '../../common/platform/kernel.js';
import { linux } from '../../common/platform/linux.js';
import { faultyKernel } from '../fixtures/faulty-kernel.js';
import { errnoError, type Test, temporaryDirectory } from '../fixtures/queue.js';
import { Log, type StagedOperation } from './log.js';
import { OPERATION } from './record.js';
import { scanLog } from './scan.js';
import { listSegments, SegmentRing } from './segment-ring.js';

const SEGMENT_BYTES = 4096;
const key = { low: 11, high: 22 };
const generation = 3;

const staged = (id: string, bytes: number): StagedOperation => ({
  operation: OPERATION.put,
  queue: 1,
  number: 0,
  id,
  idBytes: Buffer.byteLength(id),
  body: Buffer.alloc(bytes, id),
  position: 0,
});

function logIn(
  t: Test,
  kernel: Kernel = linux,
  segments = 8,
): { directory: string; log: Log; ring: SegmentRing } {
  const directory = `${temporaryDirectory(t)}/log`;
  mkdirSync(directory);
  const ring = new SegmentRing(directory, SEGMENT_BYTES, [], kernel);
  const geometry = { directory, segmentBytes: SEGMENT_BYTES, segments, key };
  const log = new Log(geometry, ring, { generation, position: 0 }, kernel);
  t.teardown(() => log.close());
  return { directory, log, ring };
}

const scan = (directory: string, from = 0) =>
  scanLog({ directory, segmentBytes: SEGMENT_BYTES, key, from, generation }, linux);

t.test('records of any sizes are read in order, at the positions that append has set', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(fc.integer({ min: 0, max: 3900 }), { minLength: 1, maxLength: 4 }), {
        minLength: 1,
        maxLength: 8,
      }),
      async (sizes) => {
        const cleanings: (() => unknown)[] = [];
        const { directory, log } = logIn({ teardown: (clean) => cleanings.push(clean) }, linux, 64);
        try {
          const positions: number[] = [];
          let number = 0;
          for (const transaction of sizes) {
            const operations = transaction.map((bytes) => {
              number += 1;
              return staged(`id-${number}`, bytes);
            });
            await log.append([operations]);
            positions.push(...operations.map(({ position }) => position));
          }
          const { records, damaged } = scan(directory);
          return (
            damaged.length === 0 &&
            records.map(({ id }) => id).join() === positions.map((_, at) => `id-${at + 1}`).join() &&
            records.map(({ position }) => position).join() === positions.join()
          );
        } finally {
          for (const clean of cleanings.reverse()) clean();
        }
      },
    ),
    { numRuns: 20 },
  );
});

t.test(
  'records that end exactly at the end of a segment, or 8 to 80 bytes before it, are followed by others',
  async (t) => {
    for (let rest = 0; rest <= 88; rest += 8) {
      const { directory, log } = logIn(t);
      await log.append([[staged('a', SEGMENT_BYTES - 73 - rest)]]);
      await log.append([[staged('b', 50)]]);
      await log.append([[staged('c', 50)]]);
      t.same(
        scan(directory).records.map(({ id }) => id),
        ['a', 'b', 'c'],
        `${rest} bytes are left`,
      );
      t.same(scan(directory).damaged, []);
    }
  },
);

t.test('a failure at any call of a batch over segments is never a success, and ends the log', async (t) => {
  let calls = 0;
  let failing = Number.POSITIVE_INFINITY;
  const names: string[] = [];
  const kernel = {
    ...linux,
    ...faultyKernel(({ name }) => {
      calls += 1;
      names.push(name);
      if (calls === failing) throw errnoError('EIO');
    }),
  };
  const sizes = [2000, 2000, 2000, 2000];
  const append = (log: Log) => log.append(sizes.map((bytes, at) => [staged(`n-${at}`, bytes)]));
  const { log: whole } = logIn(t, kernel);
  await append(whole);
  const total = calls;
  t.ok(names.filter((name) => name === 'fdatasync').length >= 2, 'each segment is synced');
  for (let at = 1; at <= total; at += 1) {
    const { directory, log } = logIn(t, kernel);
    calls = 0;
    failing = at;
    const outcome = await append(log).then(
      () => 'written',
      (error: { code?: string }) => error.code,
    );
    failing = Number.POSITIVE_INFINITY;
    if (outcome === 'no-space-on-disk') {
      t.same(scan(directory).records, [], 'nothing was written');
      await append(log);
      t.equal(scan(directory).records.length, 4, 'the log goes on');
    } else {
      t.equal(outcome, 'sync-failed', `call ${at}`);
      await t.rejects(append(log), { code: 'assertion' });
      t.same(
        scan(directory).damaged.filter(({ isConfirmed }) => isConfirmed),
        [],
      );
    }
  }
});

t.test('freed segments are used again, and the ring keeps its size', async (t) => {
  const { directory, log } = logIn(t, linux, 4);
  for (let round = 0; round < 40; round += 1) {
    await log.append([[staged(`r-${round}`, 3000)]]);
    log.release(log.position);
    await log.prepareNext();
    t.ok(readdirSync(directory).length <= 4);
    t.ok(log.freeBytes > 0 && log.freeBytes <= log.totalBytes);
  }
  const sequences = listSegments(directory, linux);
  t.ok((sequences.at(-1) ?? 0) >= 39);
  const { records } = scan(directory, (sequences.at(-2) ?? 0) * SEGMENT_BYTES);
  t.ok(records.length <= 2, 'records of an earlier lap are none');
});

t.test('no batch takes more segments than the ring has', async (t) => {
  const { directory, log } = logIn(t, linux, 4);
  const big = () => log.append([[staged('big', 3000)]]);
  for (let at = 0; at < 4; at += 1) await big();
  await t.rejects(big(), { code: 'no-space-on-disk' });
  t.equal(readdirSync(directory).length, 4);
  log.release(SEGMENT_BYTES);
  await big();
  t.equal(readdirSync(directory).length, 4);
});

t.test('a note states what is synced, once', async (t) => {
  const { directory, log } = logIn(t);
  await log.append([[staged('a', 10)]]);
  t.equal(log.needsNote, true);
  await log.appendNote();
  t.equal(log.needsNote, false);
  t.same(
    scan(directory).records.map(({ id }) => id),
    ['a'],
    'a note is no operation',
  );
});
