import { readdirSync } from 'node:fs';
import t from 'tap';
import { faultyKernel } from '../fixtures/faulty-kernel.js';
import {
  consume,
  errnoError,
  hostWith,
  installed,
  killed,
  opened,
  put,
  storedIds,
} from '../fixtures/queue.js';
import { pathsOf } from '../settings.js';

t.test('full memory rejects puts, and takes them again after a consumption', async (t) => {
  const directory = await installed(t);
  const queue = await opened(t, directory, { run: { memoryBytes: 20_000 } });
  const stored: string[] = [];
  for (let at = 0; ; at += 1) {
    const outcome = await put(queue, `m-${at}`, 2000, 'q0');
    if (outcome === 'full') break;
    stored.push(`m-${at}`);
  }
  t.ok(stored.length > 3);
  t.ok(queue.figures().bytes <= 20_000);
  t.equal(await put(queue, 'no', 2000, 'q0'), 'full');
  t.same(storedIds(killed(t, directory)), { q0: stored }, 'a rejected message is not stored');
  t.equal(await consume(queue, 'q0'), stored.shift());
  t.equal(await put(queue, 'yes', 2000, 'q0'), 'committed');
  t.same(storedIds(killed(t, directory)), { q0: [...stored, 'yes'] });
  const smaller = await opened(t, killed(t, directory), { run: { memoryBytes: 1 } });
  t.equal(await put(smaller, 'no', 1, 'q0'), 'full');
  while ((await consume(smaller, 'q0')) !== undefined);
  t.equal(smaller.figures().bytes, 0, 'memory is given back');
});

t.test('a full log rejects puts and at last consumptions, never grows, and recovers', async (t) => {
  let isBroken = true;
  const directory = await installed(t, { segments: 6 });
  let isStarted = false;
  const kernel = faultyKernel(({ name, path }) => {
    // No checkpoint can be made.
    if (isStarted && isBroken && name === 'open' && path.includes('/queues/')) throw errnoError('EIO');
  });
  const queue = await opened(t, directory, { host: hostWith(kernel) });
  isStarted = true;
  const stored: string[] = [];
  // Records of just more than half of a segment: each takes a segment of its own. They come all at once.
  const outcomes = await Promise.all(
    Array.from({ length: 40 }, async (_, at) => {
      const outcome = await put(queue, `m-${at}`, at < 4 ? 50 : 8300, 'q0');
      if (outcome === 'committed') stored.push(`m-${at}`);
      return outcome;
    }),
  );
  t.ok(outcomes.includes('full'));
  t.ok(stored.length >= 4);
  let rounds = 0;
  for (; rounds < 5000; rounds += 1) {
    // Consumptions and their opposite, until the log is full for them too.
    const outcome = await consume(queue, 'q0');
    if (outcome === 'full' || outcome === undefined) break;
    stored.shift();
  }
  for (let at = 0; at < 3000; at += 1) await queue.changeQueue({ name: 'q1', order: 'strict' });
  t.ok(readdirSync(pathsOf(directory).log).length <= 6, 'the log has its number of segments');
  t.ok(queue.figures().logBytes <= queue.figures().logCapacityBytes);
  t.same(storedIds(killed(t, directory)).q0 ?? [], stored, 'what was rejected is not stored');
  const { failedCheckpoints } = queue.figures();
  t.ok(failedCheckpoints > 0);
  const begunMs = performance.now();
  for (let at = 0; at < 300; at += 1) {
    t.equal(await put(queue, 'no', 8300, 'q0'), 'full');
    await new Promise((resolve) => setImmediate(resolve));
  }
  const mostAttempts = (performance.now() - begunMs) / 200 + 2;
  t.ok(
    queue.figures().failedCheckpoints - failedCheckpoints <= mostAttempts,
    'not each rejection tries again',
  );
  isBroken = false;
  await queue.checkpoint();
  t.equal(await put(queue, 'again', 8300, 'q0'), 'committed');
  t.same(storedIds(killed(t, directory)).q0, [...stored, 'again']);
});

t.test('too few open files at a segment switch reject a transaction, and the queue goes on', async (t) => {
  let isExhausted = false;
  const directory = await installed(t, { segmentBytes: 4096, segments: 8 });
  const kernel = faultyKernel(({ name, path }) => {
    if (isExhausted && name === 'open' && path.endsWith('.segment')) throw errnoError('EMFILE');
  });
  const queue = await opened(t, directory, { host: hostWith(kernel) });
  t.equal(await put(queue, 'first', 3000, 'q0'), 'committed');
  isExhausted = true;
  t.equal(await put(queue, 'second', 3000, 'q0'), 'full');
  isExhausted = false;
  t.equal(await put(queue, 'third', 3000, 'q0'), 'committed');
  t.same(storedIds(killed(t, directory)), { q0: ['first', 'third'] });
});

t.test(
  'a full disk rejects what needs a new segment, and the queue goes on when there is space',
  async (t) => {
    let isFull = false;
    const directory = await installed(t, { segmentBytes: 4096, segments: 12 });
    const kernel = faultyKernel(({ name, path }) => {
      if (isFull && name === 'write' && path.endsWith('.new')) throw errnoError('ENOSPC');
    });
    const queue = await opened(t, directory, { host: hostWith(kernel) });
    isFull = true;
    const stored: string[] = [];
    let rejected = 0;
    for (let at = 0; at < 12; at += 1) {
      if ((await put(queue, `m-${at}`, 3000, 'q0')) === 'committed') stored.push(`m-${at}`);
      else rejected += 1;
    }
    t.ok(stored.length > 0 && rejected > 0, `${stored.length} stored, ${rejected} rejected`);
    t.same(storedIds(killed(t, directory)), { q0: stored });
    isFull = false;
    t.equal(await put(queue, 'more', 3000, 'q0'), 'committed');
    t.same(storedIds(killed(t, directory)), { q0: [...stored, 'more'] });
  },
);
