import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import t from 'tap';
import type { Kernel } from '../../common/platform/kernel.js';
import { linux } from '../../common/platform/linux.js';
import { type FileCall, faultyKernel } from '../fixtures/faulty-kernel.js';
import { errnoError, type Test, temporaryDirectory } from '../fixtures/queue.js';
import { listSegments, SegmentRing, segmentPath } from './segment-ring.js';

const SEGMENT_BYTES = 8192;

function directoryOf(t: Test): string {
  const directory = `${temporaryDirectory(t)}/log`;
  mkdirSync(directory);
  return directory;
}

const kernelOf = (onCall: (call: FileCall) => void): Kernel => ({ ...linux, ...faultyKernel(onCall) });

t.test('a new segment has its whole size, and its name is synced before it is ready', async (t) => {
  const directory = directoryOf(t);
  const calls: string[] = [];
  const ring = new SegmentRing(
    directory,
    SEGMENT_BYTES,
    [],
    kernelOf(({ name, path }) => calls.push(`${name} ${basename(path)}`)),
  );
  await Promise.all([ring.prepare(3), ring.prepare(3), ring.prepare(4)]);
  t.same(listSegments(directory, linux), [3, 4]);
  t.equal(statSync(segmentPath(directory, 3)).size, SEGMENT_BYTES);
  t.same(calls.filter((call) => /rename|sync/.test(call)).slice(0, 3), [
    `fdatasync ${basename(segmentPath('', 3))}.new`,
    `rename ${basename(segmentPath('', 3))}`,
    'fsync log',
  ]);
  t.ok(ring.isReady(3) && ring.isReady(4) && !ring.isReady(5));
  t.equal(ring.first, 3);
});

t.test('a failure at any call leaves no half segment, and the next attempt succeeds', async (t) => {
  for (let failing = 1; failing < 12; failing += 1) {
    const directory = directoryOf(t);
    let calls = 0;
    const ring = new SegmentRing(
      directory,
      SEGMENT_BYTES,
      [],
      kernelOf(({ name }) => {
        calls += 1;
        if (calls === failing && name !== 'remove') throw errnoError('ENOSPC');
      }),
    );
    await ring.prepare(0).catch(() => t.notOk(ring.isReady(0)));
    await ring.prepare(0);
    t.same(readdirSync(directory), [basename(segmentPath('', 0))], `call ${failing}`);
    t.ok(ring.isReady(0));
  }
});

t.test('segments before a position are used again, lowest first, and no other ones', async (t) => {
  const directory = directoryOf(t);
  for (const old of [0, 1]) writeFileSync(segmentPath(directory, old), Buffer.alloc(SEGMENT_BYTES, `${old}`));
  const ring = new SegmentRing(directory, SEGMENT_BYTES, [0, 1], linux);
  await ring.prepare(2);
  t.same(listSegments(directory, linux), [1, 2]);
  t.equal(readFileSync(segmentPath(directory, 2))[0], '0'.charCodeAt(0));
  await ring.prepare(3);
  await ring.prepare(4);
  ring.release(3);
  t.same([ring.first, ring.usedCount], [3, 2]);
  await ring.prepare(5);
  t.same(listSegments(directory, linux), [3, 4, 5]);
});
