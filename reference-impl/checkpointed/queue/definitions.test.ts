import { cpSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { linux } from '../../common/platform/linux.js';
import { MAX_QUEUES } from '../checkpoint/control.js';
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
  type Test,
} from '../fixtures/queue.js';
import { pathsOf } from '../settings.js';
import type { CheckpointedQueue } from './checkpointed-queue.js';
import { verifyQueue } from './verify.js';

const namesOf = (queue: CheckpointedQueue) => queue.queues().map(({ definition }) => definition.name);

/** Holds one call back that a queue has deferred: a checkpoint makes one after it has looked at a queue. */
class Pause {
  #calls = Number.POSITIVE_INFINITY;
  #isReached: () => void = () => undefined;
  goOn: () => unknown = () => undefined;

  /** Resolves when the call with this number has come, from 1. */
  after(calls: number): Promise<void> {
    this.#calls = calls;
    return new Promise((resolve) => {
      this.#isReached = resolve;
    });
  }

  defer(callback: () => unknown): void {
    this.#calls -= 1;
    if (this.#calls === 0) {
      this.goOn = callback;
      this.#isReached();
    } else linux.defer(callback);
  }
}

/** Opens what a kill would leave, without and with the control record. */
async function successors(t: Test, directory: string): Promise<CheckpointedQueue[]> {
  const copy = killed(t, directory);
  const without = killed(t, directory);
  rmSync(pathsOf(without).control);
  return [await opened(t, copy), await opened(t, without)];
}

t.test(
  'created, changed and deleted queues are so after a kill, before and after a checkpoint',
  async (t) => {
    const directory = await installed(t);
    const queue = await opened(t, directory);
    t.equal(await queue.createQueue({ name: 'mine', order: 'strict' }), 'created');
    t.equal(await queue.createQueue({ name: 'mine', order: 'strict' }), 'exists');
    t.equal(await queue.changeQueue({ name: 'mine', order: 'relaxed' }), 'changed');
    t.equal(await queue.changeQueue({ name: 'other', order: 'relaxed' }), 'no-such-queue');
    await queue.createQueue({ name: 'gone', order: 'strict' });
    await put(queue, 'm', 10, 'mine');
    await put(queue, 'x', 10, 'gone');
    t.equal(await queue.deleteQueue('gone'), 'deleted');
    t.equal(await queue.deleteQueue('gone'), 'no-such-queue');
    t.equal(await queue.deleteQueue('q0'), 'rejected', 'a default queue stays');
    t.equal(await put(queue, 'x', 10, 'gone'), 'no-such-queue');
    await t.rejects(queue.createQueue({ name: '../x', order: 'strict' }), { code: 'bad-setting' });
    for (let round = 0; round < 2; round += 1) {
      for (const successor of await successors(t, directory)) {
        t.same(namesOf(successor), ['q0', 'q1', 'mine']);
        t.equal(successor.queues()[2]?.definition.order, 'relaxed');
        t.equal(successor.take('mine')?.id, 'm');
      }
      await queue.checkpoint();
    }
    t.ok(verifyQueue(directory, linux).ok);
  },
);

t.test('a queue that is deleted after a checkpoint never returns', async (t) => {
  const directory = await installed(t);
  const queue = await opened(t, directory);
  await queue.createQueue({ name: 'gone', order: 'strict' });
  await put(queue, 'x', 10, 'gone');
  await queue.checkpoint();
  const taken = queue.take('gone');
  await queue.deleteQueue('gone');
  if (taken !== undefined) queue.putBack(taken);
  if (taken !== undefined)
    t.match(await queue.commit({ puts: [], consumed: [taken] }), { reason: 'not-taken' });
  for (let round = 0; round < 3; round += 1) {
    for (const successor of await successors(t, directory)) t.same(namesOf(successor), ['q0', 'q1']);
    await put(queue, `m-${round}`, 8000, 'q0');
    await queue.checkpoint();
  }
  t.equal(
    readdirSync(pathsOf(directory).queues).some((name) => !/^0{15}[12]\./.test(name)),
    false,
  );
});

t.test('slots of a deleted queue that a kill or a failed checkpoint has left are removed', async (t) => {
  const directory = await installed(t);
  let isBroken = false;
  const kernel = faultyKernel(({ name, path }) => {
    if (isBroken && name === 'fsync' && path.endsWith('/queues')) throw errnoError('EIO');
  });
  const queue = await opened(t, directory, { host: hostWith(kernel) });
  await queue.createQueue({ name: 'gone', order: 'strict' });
  isBroken = true;
  await queue.checkpoint();
  t.equal(queue.figures().failedCheckpoints, 1);
  isBroken = false;
  const orphans = killed(t, directory);
  await queue.deleteQueue('gone');
  for (let round = 0; round < 12; round += 1) {
    await put(queue, `m-${round}`, 8000, 'q0');
    await consume(queue, 'q0');
    await queue.checkpoint();
  }
  t.equal(
    readdirSync(pathsOf(directory).queues).some((name) => !/^0{15}[12]\./.test(name)),
    false,
  );
  // A kill between the control record and the removal: the slots are there, and nothing names them.
  const left = killed(t, directory);
  for (const name of readdirSync(pathsOf(orphans).queues))
    if (!/^0{15}[12]\./.test(name))
      cpSync(join(pathsOf(orphans).queues, name), join(pathsOf(left).queues, name));
  const successor = await opened(t, left);
  t.same(namesOf(successor), ['q0', 'q1']);
  for (const later of await successors(t, left)) t.same(namesOf(later), ['q0', 'q1']);
});

t.test('a queue that two clients create at once is one queue, and its deletion is final', async (t) => {
  const directory = await installed(t);
  const queue = await opened(t, directory);
  const definition = { name: 'twice', order: 'strict' } as const;
  t.same((await Promise.all([queue.createQueue(definition), queue.createQueue(definition)])).sort(), [
    'created',
    'exists',
  ]);
  await put(queue, 'm', 10, 'twice');
  for (const successor of await successors(t, directory)) t.same(namesOf(successor), ['q0', 'q1', 'twice']);
  await queue.deleteQueue('twice');
  for (const successor of await successors(t, directory)) t.same(namesOf(successor), ['q0', 'q1']);
});

t.test(
  'a queue that is deleted and made again while a checkpoint looks at the queues is one queue',
  async (t) => {
    const directory = await installed(t);
    const pause = new Pause();
    const queue = await opened(t, directory, {
      host: hostWith({ defer: (callback) => pause.defer(callback) }),
    });
    await queue.createQueue({ name: 'mine', order: 'strict' });
    await put(queue, 'old', 10, 'mine');
    const isPaused = pause.after(3);
    const checkpoint = queue.checkpoint();
    await isPaused;
    t.equal(await queue.deleteQueue('mine'), 'deleted');
    t.equal(await queue.createQueue({ name: 'mine', order: 'relaxed' }), 'created');
    await put(queue, 'new', 10, 'mine');
    pause.goOn();
    await checkpoint;
    t.same(verifyQueue(directory, linux).problems, []);
    t.same(storedIds(directory), { mine: ['new'] });
    for (const successor of await successors(t, directory)) {
      t.same(namesOf(successor), ['q0', 'q1', 'mine']);
      t.equal(successor.take('mine')?.id, 'new');
    }
  },
);

t.test(
  'a transaction over two queues of which a checkpoint has looked at one is restored in both',
  async (t) => {
    const directory = await installed(t);
    const pause = new Pause();
    const queue = await opened(t, directory, {
      host: hostWith({ defer: (callback) => pause.defer(callback) }),
    });
    for (const name of ['q0', 'q1']) await put(queue, `old-${name}`, 10, name);
    const isPaused = pause.after(1);
    const checkpoint = queue.checkpoint();
    await isPaused;
    const transaction = queue.begin();
    for (const name of ['q0', 'q1']) {
      transaction.take(name);
      transaction.put(`new-${name}`, Buffer.alloc(10), name);
    }
    t.match(await transaction.commit(), { outcome: 'committed' });
    const both = { q0: ['new-q0'], q1: ['new-q1'] };
    pause.goOn();
    await checkpoint;
    t.same(storedIds(killed(t, directory)), both, 'in the log for one, in the slot of the other');
    await queue.checkpoint();
    t.same(storedIds(killed(t, directory)), both);
  },
);

t.test(
  'there are at most 200 queues, also when more are created at once, and a checkpoint holds them',
  async (t) => {
    const directory = await installed(t);
    const queue = await opened(t, directory);
    const name = (at: number) => `${at}-${'x'.repeat(64)}`.slice(0, 64);
    const outcomes = await Promise.all(
      Array.from({ length: MAX_QUEUES + 60 }, (_, at) =>
        queue.createQueue({ name: name(at), order: 'relaxed' }),
      ),
    );
    t.equal(outcomes.filter((outcome) => outcome === 'created').length, MAX_QUEUES - 2);
    await put(queue, 'm', 10, name(100));
    await queue.checkpoint();
    const successor = await opened(t, killed(t, directory));
    t.equal(successor.queues().length, MAX_QUEUES);
    t.same(storedIds(directory), { [name(100)]: ['m'] });
  },
);
