import { readdirSync } from 'node:fs';
import t from 'tap';
import { linux } from '../../common/platform/linux.js';
import { LockFile } from '../../common/platform/locks.js';
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
import type { Host, Writer } from '../host.js';
import { verifyQueue } from '../queue/verify.js';
import { pathsOf } from '../settings.js';
import { CONTROL_LOCK } from './control.js';

/** A host whose writers `wrap` may replace. */
function hostOf(wrap: (writer: Writer, number: number) => Writer): Host {
  const host = hostWith();
  let number = 0;
  return {
    ...host,
    startWriter(fd) {
      number += 1;
      return wrap(host.startWriter(fd), number);
    },
  };
}

t.test(
  'a writer that dies leaves the old checkpoint in force, and the next checkpoint has everything',
  async (t) => {
    const directory = await installed(t);
    let isDying = false;
    const host = hostOf((writer) => ({
      async write(bytes) {
        await writer.write(isDying ? bytes.subarray(0, 20) : bytes);
        if (isDying) throw new Error('killed');
      },
      end: () => writer.end(),
    }));
    const queue = await opened(t, directory, { host });
    for (const id of ['a', 'b', 'c']) await put(queue, id, 100, 'q0');
    await queue.checkpoint();
    const before = verifyQueue(directory, linux).checkpoint;
    isDying = true;
    await put(queue, 'd', 100, 'q0');
    await put(queue, 'e', 100, 'q1');
    await queue.checkpoint();
    t.match(verifyQueue(killed(t, directory), linux), { ok: true, checkpoint: before });
    t.same(storedIds(killed(t, directory)), { q0: ['a', 'b', 'c', 'd'], q1: ['e'] });
    isDying = false;
    await queue.checkpoint();
    const after = killed(t, directory);
    t.match(verifyQueue(after, linux), { ok: true, checkpoint: before + 1 });
    t.same(storedIds(after), { q0: ['a', 'b', 'c', 'd'], q1: ['e'] });
  },
);

t.test('a change during a checkpoint is in the next one, and is restored before and after it', async (t) => {
  const directory = await installed(t);
  let release: () => void = () => undefined;
  let started: () => void = () => undefined;
  let isHeld = false;
  const host = hostOf((writer) => ({
    write: (bytes) => writer.write(bytes),
    async end() {
      if (isHeld) {
        started();
        await new Promise<void>((resolve) => {
          release = resolve;
        });
      }
      return writer.end();
    },
  }));
  const queue = await opened(t, directory, { host });
  await put(queue, 'before', 10, 'q0');
  isHeld = true;
  const isUnderWay = new Promise<void>((resolve) => {
    started = resolve;
  });
  const checkpoint = queue.checkpoint();
  await isUnderWay;
  await put(queue, 'during', 10, 'q0');
  await consume(queue, 'q0');
  await put(queue, 'other', 10, 'q1');
  t.same(storedIds(killed(t, directory)), { q0: ['during'], q1: ['other'] });
  isHeld = false;
  release();
  await checkpoint;
  t.same(storedIds(killed(t, directory)), { q0: ['during'], q1: ['other'] }, 'the checkpoint ends');
  await queue.checkpoint();
  t.same(storedIds(killed(t, directory)), { q0: ['during'], q1: ['other'] }, 'the next one ends');
});

t.test(
  'the control record is locked while a checkpoint is made, and unlocked after it, also after a failure',
  async (t) => {
    const directory = await installed(t);
    const lock = new LockFile(pathsOf(directory).control);
    t.teardown(() => lock.close());
    const seen: boolean[] = [];
    let isDying = false;
    const queue = await opened(t, directory, {
      host: hostOf((writer) => ({
        async write(bytes) {
          seen.push(lock.isHeldElsewhere(CONTROL_LOCK.checkpoint));
          if (isDying) throw new Error('killed');
          await writer.write(bytes);
        },
        end: () => writer.end(),
      })),
    });
    for (const dying of [false, true]) {
      isDying = dying;
      await put(queue, 'm', 10, 'q0');
      await queue.checkpoint();
      t.equal(lock.isHeldElsewhere(CONTROL_LOCK.checkpoint), false);
      t.equal(lock.isHeldElsewhere(CONTROL_LOCK.server), true);
    }
    t.same(seen, [true, true]);
  },
);

t.test('a transaction that is logged and not yet spliced is redone behind a checkpoint', async (t) => {
  const directory = await installed(t);
  let isHeld = false;
  let release: () => void = () => undefined;
  let hold: () => void = () => undefined;
  const isSynced = new Promise<void>((synced) => {
    hold = synced;
  });
  const kernel = faultyKernel(() => undefined);
  const host = hostWith({
    ...kernel,
    async fdatasync(fd) {
      await kernel.fdatasync?.(fd);
      if (!isHeld) return;
      isHeld = false;
      hold();
      await new Promise<void>((resolve) => {
        release = resolve;
      });
    },
  });
  const queue = await opened(t, directory, { host });
  await put(queue, 'first', 10, 'q0');
  isHeld = true;
  const second = put(queue, 'second', 10, 'q0');
  await isSynced;
  await queue.checkpoint();
  t.equal(queue.figures().messages, 1, 'the transaction is not spliced');
  t.same(storedIds(killed(t, directory)), { q0: ['first', 'second'] });
  release();
  t.equal(await second, 'committed');
  await queue.checkpoint();
  t.same(storedIds(killed(t, directory)), { q0: ['first', 'second'] });
});

t.test('unchanged queues are not written again', async (t) => {
  const directory = await installed(t);
  let writers = 0;
  const queue = await opened(t, directory, {
    host: hostOf((writer) => {
      writers += 1;
      return writer;
    }),
  });
  writers = 0;
  await put(queue, 'm', 10, 'q0');
  await queue.checkpoint();
  t.equal(writers, 1);
  await queue.checkpoint();
  t.equal(writers, 1);
});

t.test('a failure of any call of a checkpoint loses nothing', async (t) => {
  const directory = await installed(t);
  let calls = 0;
  let failing = Number.POSITIVE_INFINITY;
  const kernel = faultyKernel(({ path }) => {
    if (path.includes('/log')) return;
    calls += 1;
    if (calls === failing) throw errnoError('EIO');
  });
  const ids: string[] = [];
  let queue = await opened(t, directory, { host: hostWith(kernel) });
  let failed = 0;
  let number = 0;
  const fill = async () => {
    number += 1;
    for (const name of ['q0', 'q1']) await put(queue, `m-${number}`, 10, name);
    ids.push(`m-${number}`);
  };
  await fill();
  calls = 0;
  await queue.checkpoint();
  const total = calls;
  t.ok(total > 8, `${total} calls`);
  for (let at = 1; at <= total; at += 1) {
    await fill();
    calls = 0;
    failing = at;
    const isFatal = await queue.checkpoint().then(
      () => false,
      () => true,
    );
    failing = Number.POSITIVE_INFINITY;
    if (isFatal) {
      failed += 1;
      await t.rejects(queue.failure, { code: 'sync-failed' });
      const copy = killed(t, directory);
      t.same(storedIds(copy), { q0: ids, q1: ids }, `call ${at}`);
      queue = await opened(t, copy, { host: hostWith(kernel) });
      t.same(storedIds(copy), { q0: ids, q1: ids });
      break;
    }
    t.same(storedIds(killed(t, directory)), { q0: ids, q1: ids }, `call ${at}`);
  }
  t.ok(failed > 0, 'a failure of the control record ends the queue');
});

t.test('after a control record that could not be written, a stop makes no other checkpoint', async (t) => {
  const directory = await installed(t);
  let isBroken = false;
  const kernel = faultyKernel(({ name, path }) => {
    if (!isBroken || name !== 'fdatasync' || !path.endsWith('/control')) return;
    isBroken = false;
    throw errnoError('EIO');
  });
  const queue = await opened(t, directory, { host: hostWith(kernel) });
  for (const name of ['q0', 'q1']) await put(queue, 'm', 10, name);
  isBroken = true;
  await t.rejects(queue.checkpoint(), { code: 'sync-failed' });
  t.equal(isBroken, false);
  await t.rejects(queue.close(), { code: 'sync-failed' }, 'the stop is no orderly one');
  t.same(storedIds(directory), { q0: ['m'], q1: ['m'] });
  const successor = await opened(t, directory);
  t.equal(successor.figures().messages, 2, 'its files are closed, and nothing is lost');
});

t.test('many changed queues do not start many processes at once', async (t) => {
  const directory = await installed(t);
  let running = 0;
  let most = 0;
  const queue = await opened(t, directory, {
    host: hostOf((writer) => {
      running += 1;
      most = Math.max(most, running);
      return {
        write: (bytes) => writer.write(bytes),
        async end() {
          await new Promise((resolve) => setImmediate(resolve));
          running -= 1;
          return writer.end();
        },
      };
    }),
  });
  await Promise.all(
    Array.from({ length: 60 }, (_, at) => queue.createQueue({ name: `n-${at}`, order: 'strict' })),
  );
  await queue.checkpoint();
  t.ok(most >= 2 && most <= 8, `${most} at once`);
  t.equal(running, 0);
  t.ok(readdirSync(pathsOf(directory).queues).length >= 62);
});

t.test('a failed checkpoint waits for its writers: they may still use their files', async (t) => {
  const directory = await installed(t);
  let isExhausted = false;
  let running = 0;
  const host = hostOf((writer) => {
    running += 1;
    return {
      write: (bytes) => writer.write(bytes),
      async end() {
        await new Promise((resolve) => setTimeout(resolve, 20));
        running -= 1;
        return writer.end();
      },
    };
  });
  const faulty = faultyKernel(({ name, path }) => {
    if (isExhausted && name === 'open' && path.includes('0002.')) throw errnoError('EMFILE');
  });
  const queue = await opened(t, directory, { host: { ...host, kernel: hostWith(faulty).kernel } });
  for (const name of ['q0', 'q1']) await put(queue, 'm', 10, name);
  isExhausted = true;
  await queue.checkpoint();
  t.equal(running, 0);
  t.equal(queue.figures().failedCheckpoints, 1);
  isExhausted = false;
  await queue.checkpoint();
  t.same(storedIds(killed(t, directory)), { q0: ['m'], q1: ['m'] });
});

t.test('a queue is closed in order while a sync of the log is under way', async (t) => {
  const directory = await installed(t);
  const kernel = faultyKernel(() => undefined);
  let isSlow = false;
  const queue = await opened(t, directory, {
    host: hostWith({
      ...kernel,
      async fdatasync(fd) {
        if (isSlow) await new Promise((resolve) => setTimeout(resolve, 50));
        await kernel.fdatasync?.(fd);
      },
    }),
  });
  isSlow = true;
  const late = put(queue, 'late', 10, 'q0');
  await queue.close();
  t.equal(await late, 'committed');
  t.same(storedIds(directory), { q0: ['late'] });
});

t.test('nothing of a queue that is closed changes its files', async (t) => {
  const directory = await installed(t, { segments: 12 });
  const late: string[] = [];
  let isClosed = false;
  let isHeld = false;
  let held = 0;
  let synced = '';
  const kernel = faultyKernel(({ name, path }) => {
    if (name === 'fdatasync') synced = path;
    if (isClosed) late.push(`${name} ${path}`);
  });
  const queue = await opened(t, directory, {
    host: hostWith({
      ...kernel,
      async fdatasync(fd) {
        const done = kernel.fdatasync?.(fd);
        const isNew = isHeld && synced.endsWith('.new');
        await done;
        if (!isNew) return;
        held += 1;
        await new Promise((resolve) => setTimeout(resolve, 50));
      },
    }),
  });
  isHeld = true;
  // Each takes a segment of its own, so the next one is made.
  for (let at = 0; held === 0 && at < 6; at += 1)
    t.equal(await put(queue, `m-${at}`, 8300, 'q0'), 'committed');
  t.equal(held, 1);
  await queue.close();
  isClosed = true;
  await new Promise((resolve) => setTimeout(resolve, 100));
  t.same(late, []);
});
