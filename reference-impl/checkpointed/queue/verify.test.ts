import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { renameSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { linux } from '../../common/platform/linux.js';
import { installed, killed, opened, put, storedIds } from '../fixtures/queue.js';
import { listSegments, segmentPath } from '../log/segment-ring.js';
import { pathsOf } from '../settings.js';
import { inspectQueue } from './inspect.js';
import { verifyQueue } from './verify.js';

const HAMMER = fileURLToPath(new URL('../fixtures/hammer.js', import.meta.url));
const ROUNDS = 60;

t.test('verify and inspect find no problem beside a live server, however often they look', async (t) => {
  const directory = await installed(t, { segmentBytes: 64 * 1024, segments: 6, queues: 4 });
  const child = spawn(process.execPath, [HAMMER, directory], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout });
  await once(lines, 'line');
  const seen = new Set<number>();
  for (let round = 0; round < ROUNDS; round += 1) {
    const report = verifyQueue(directory, linux);
    t.same(report.problems, [], `round ${round}`);
    seen.add(report.checkpoint);
    for (const _ of inspectQueue(directory, true, linux));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  t.ok(seen.size > 3, `${seen.size} checkpoints were seen`);
  const figures = once(lines, 'line');
  child.stdin.end();
  t.ok(Number((await figures)[0]) > 3);
  t.ok(verifyQueue(directory, linux).ok);
});

t.test('a record that is written while the log is read is no damage', async (t) => {
  const directory = await installed(t);
  const queue = await opened(t, directory);
  for (const id of ['a', 'b', 'c']) await put(queue, id, 100, 'q0');
  let reads = 0;
  const kernel = {
    ...linux,
    // The page with the record of b is read before it is written, and the page with that of c after it.
    read(fd: number, to: Buffer, at: number, length: number, position: number | null) {
      const read = linux.read(fd, to, at, length, position);
      const place = to.indexOf('bbbbbbbb');
      if (place === -1 || !to.includes('PPCR')) return read;
      reads += 1;
      if (reads === 1) to.fill(0, place - 73, place + 100);
      return read;
    },
  };
  t.match(verifyQueue(directory, kernel), { ok: true, problems: [], live: 3 });
  t.ok(reads >= 2, 'it has looked again');
  t.ok(verifyQueue(killed(t, directory), linux).ok);
});

t.test('a segment that is used again while the log is read is no error', async (t) => {
  const directory = await installed(t);
  const queue = await opened(t, directory);
  await put(queue, 'a', 100, 'q0');
  const { log } = pathsOf(directory);
  const segments = listSegments(log, linux);
  const last = segments.at(-1) ?? 0;
  let isMoved = false;
  const kernel = {
    ...linux,
    list(path: string) {
      const names = linux.list(path);
      if (path !== log) return names;
      if (!isMoved) renameSync(segmentPath(log, last), segmentPath(log, last + 1));
      isMoved = true;
      return names;
    },
  };
  t.match(verifyQueue(directory, kernel), { ok: true, live: 1 });
  t.ok(isMoved);
  t.same(storedIds(directory), { q0: ['a'] });
});

t.test('damage is a problem in each look', async (t) => {
  const directory = await installed(t);
  const queue = await opened(t, directory);
  for (const id of ['a', 'b', 'c']) await put(queue, id, 100, 'q0');
  const copy = killed(t, directory);
  const { log } = pathsOf(copy);
  for (const sequence of listSegments(log, linux)) {
    const fd = linux.open(segmentPath(log, sequence), 'r+');
    const bytes = Buffer.alloc(linux.sizeBytes(fd));
    linux.read(fd, bytes, 0, bytes.length, 0);
    const place = bytes.indexOf('bbbbbbbb');
    if (place !== -1) linux.write(fd, Buffer.alloc(8), 0, 8, place);
    linux.close(fd);
  }
  const report = verifyQueue(copy, linux);
  t.equal(report.ok, false);
  t.equal(report.problems.length, 1);
  t.equal(report.live, 2);
});
