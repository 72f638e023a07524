import { readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { linux } from '../../common/platform/linux.js';
import { slotPath } from '../checkpoint/slot.js';
import { faultyKernel } from '../fixtures/faulty-kernel.js';
import {
  consume,
  errnoError,
  hostWith,
  installed,
  killed,
  NO_CHECKPOINTS,
  opened,
  put,
  storedIds,
  type Test,
} from '../fixtures/queue.js';
import { CheckpointedQueue } from '../queue/checkpointed-queue.js';
import { rebuildQueue } from '../queue/rebuild.js';
import { verifyQueue } from '../queue/verify.js';
import { pathsOf } from '../settings.js';

const COPY_BYTES = 64 * 1024;

/** Makes a queue with contents in slots and in the log, some of them consumed. @returns its directory, and what it holds */
async function filled(
  t: Test,
  checkpoints: number,
): Promise<{ directory: string; ids: Record<string, string[]> }> {
  const directory = await installed(t);
  const queue = await opened(t, directory);
  await queue.createQueue({ name: 'mine', order: 'relaxed' });
  for (let round = 0; round <= checkpoints; round += 1) {
    for (const name of ['q0', 'q1', 'mine'])
      for (const at of [1, 2]) await put(queue, `${name}-${round}-${at}`, 300, name);
    await consume(queue, 'q0');
    if (round < checkpoints) await queue.checkpoint();
  }
  const copy = killed(t, directory);
  const ids = storedIds(copy);
  return { directory: copy, ids };
}

t.test(
  'restoring twice, or a restore that is killed at any call, gives what one restore gives',
  async (t) => {
    const { directory, ids } = await filled(t, 2);
    t.same(ids, {
      mine: ['mine-0-1', 'mine-0-2', 'mine-1-1', 'mine-1-2', 'mine-2-1', 'mine-2-2'],
      q0: ['q0-1-2', 'q0-2-1', 'q0-2-2'],
      q1: ['q1-0-1', 'q1-0-2', 'q1-1-1', 'q1-1-2', 'q1-2-1', 'q1-2-2'],
    });
    let calls = 0;
    let failing = Number.POSITIVE_INFINITY;
    const kernel = () => {
      calls = 0;
      return faultyKernel(() => {
        calls += 1;
        if (calls >= failing) throw errnoError('EIO');
      });
    };
    const whole = await opened(t, killed(t, directory), { host: hostWith(kernel()) });
    const total = calls;
    await whole.close();
    t.ok(total > 15, `${total} calls`);
    for (failing = 2; failing <= total; failing += 1) {
      const copy = killed(t, directory);
      await t.rejects(CheckpointedQueue.open(copy, NO_CHECKPOINTS, hostWith(kernel())));
      t.same(storedIds(copy), ids, `ended at call ${failing}`);
      // The failed start has let go of the queue: the next one restores the rest.
      const again = await CheckpointedQueue.open(copy, NO_CHECKPOINTS, hostWith());
      await again.close();
      t.same(storedIds(copy), ids);
      t.ok(verifyQueue(copy, linux).ok);
    }
  },
);

t.test('a lost control record loses nothing', async (t) => {
  for (const checkpoints of [0, 1, 2, 3]) {
    const { directory, ids } = await filled(t, checkpoints);
    for (const size of [0, 4, 8, 12, 15, 16, 100, COPY_BYTES + 8, COPY_BYTES + 15]) {
      const copy = killed(t, directory);
      truncateSync(pathsOf(copy).control, size);
      t.same(storedIds(copy), ids, `cut at ${size}`);
    }
    rmSync(pathsOf(directory).control);
    t.notOk(verifyQueue(directory, linux).ok, 'verify names the loss');
    t.same(storedIds(directory), ids);
    t.equal((await rebuildQueue(directory, true, hostWith())).messages, Object.values(ids).flat().length);
    t.same(storedIds(directory), ids);
    t.ok(verifyQueue(directory, linux).ok);
  }
});

t.test(
  'damage to either copy of the control record, at any byte, loses nothing and returns nothing',
  async (t) => {
    for (const checkpoints of [1, 2]) {
      const { directory, ids } = await filled(t, checkpoints);
      const path = pathsOf(directory).control;
      const control = readFileSync(path);
      for (const base of [0, COPY_BYTES]) {
        const length = 16 + control.readUInt32LE(base + 8);
        for (let at = base; at < base + length; at += at < base + 24 ? 1 : 31) {
          const damaged = Buffer.from(control);
          damaged[at] = (damaged[at] ?? 0) ^ 0x41;
          writeFileSync(path, damaged);
          t.same(storedIds(directory), ids, `byte ${at}`);
        }
      }
    }
  },
);

t.test('an old copy of the control record is not believed when the log was used again since', async (t) => {
  const directory = await installed(t, { segmentBytes: 4096, segments: 4 });
  const queue = await opened(t, directory, { run: {} });
  await queue.createQueue({ name: 'gone', order: 'strict' });
  await put(queue, 'old', 10, 'gone');
  await queue.checkpoint();
  await queue.deleteQueue('gone');
  await queue.checkpoint();
  // The log goes around while no queue has contents that differ: the slots stay the old ones.
  for (let at = 0; at < 4; at += 1) {
    await put(queue, `m-${at}`, 2000, 'q0');
    await consume(queue, 'q0');
  }
  const copy = killed(t, directory);
  const bytes = readFileSync(pathsOf(copy).control);
  // Damage the newest copy: of the two, the one with the higher number.
  const numbers = [0, COPY_BYTES].map((at) =>
    Number(/"checkpoint":(\d+)/.exec(bytes.toString('latin1', at, at + 60))?.[1]),
  );
  const newest = (numbers[0] ?? 0) > (numbers[1] ?? 0) ? 0 : COPY_BYTES;
  bytes.fill(0xee, newest, newest + 40);
  writeFileSync(pathsOf(copy).control, bytes);
  t.same(storedIds(copy), {});
  const report = verifyQueue(copy, linux);
  t.same(report.problems, [], 'nothing is lost, so nothing is reported');
  const successor = await opened(t, copy);
  t.same(
    successor.queues().map(({ definition }) => definition.name),
    ['q0', 'q1'],
  );
});

t.test('damage to a slot is named and kept aside once, and the other messages survive', async (t) => {
  const { directory } = await filled(t, 3);
  const queue = await opened(t, directory);
  await queue.close();
  const ids = storedIds(directory);
  t.equal(ids.mine?.length, 8);
  const id = Number.parseInt(readdirSync(pathsOf(directory).queues).sort().at(-1) ?? '', 16);
  for (let round = 0; round < 2; round += 1) {
    const path =
      ([0, 1] as const)
        .map((slot) => slotPath(pathsOf(directory).queues, id, slot))
        .find((one) => readFileSync(one).includes('mine-3-2')) ?? '';
    const bytes = readFileSync(path);
    // The same place in each round: the first message of the slot.
    const at = bytes.indexOf('PPCM');
    bytes.fill(0, at, at + 8);
    writeFileSync(path, bytes);
    t.notOk(verifyQueue(directory, linux).ok);
    const again = await opened(t, directory);
    t.equal(readdirSync(pathsOf(directory).aside).length, round + 1, 'each damage has a file of its own');
    await again.close();
    t.same(storedIds(directory).mine, ids.mine?.slice(round + 1));
    t.ok(verifyQueue(directory, linux).ok, 'what is kept aside is no problem any more');
  }
});

t.test('a queue whose slots are both unreadable is named, and a default queue works again', async (t) => {
  const { directory, ids } = await filled(t, 2);
  rmSync(pathsOf(directory).control);
  for (const slot of [0, 1] as const) {
    const path = slotPath(pathsOf(directory).queues, 1, slot);
    const bytes = readFileSync(path);
    bytes.fill(0, 0, 48);
    writeFileSync(path, bytes);
  }
  const report = verifyQueue(directory, linux);
  t.match(report.problems.join('\n'), /0000000000000001/);
  const queue = await opened(t, directory);
  t.ok(readdirSync(pathsOf(directory).aside).length >= 1, 'the bytes are kept');
  t.equal(await put(queue, 'new', 10, 'q0'), 'committed');
  t.same(storedIds(directory).q1, ids.q1);
  t.equal(storedIds(directory).q0?.at(-1), 'new');
});

t.test(
  'a damaged record of the log is named once it was stated to be synced, and the others survive',
  async (t) => {
    const { directory, ids } = await filled(t, 1);
    const { log } = pathsOf(directory);
    const found = readdirSync(log)
      .map((name) => join(log, name))
      .find((path) => readFileSync(path).includes('q1-1-1'));
    t.ok(found);
    if (found === undefined) return;
    const bytes = readFileSync(found);
    const at = bytes.indexOf('q1-1-1');
    for (let damaged = at - 72; damaged < at + 306; damaged += 7) {
      const copy = Buffer.from(bytes);
      copy[damaged] = (copy[damaged] ?? 0) ^ 1;
      writeFileSync(found, copy);
      // Padding and reserved bytes do not count.
      const isUnused = damaged >= at - 4 && damaged < at;
      const expected = isUnused ? ids : { ...ids, q1: ids.q1?.filter((id) => id !== 'q1-1-1') };
      t.same(storedIds(directory), expected, `byte ${damaged}`);
      t.equal(verifyQueue(directory, linux).problems.length, isUnused ? 0 : 1);
    }
    const queue = await opened(t, directory);
    t.equal(readdirSync(pathsOf(directory).aside).length, 1);
    await queue.close();
    t.ok(verifyQueue(directory, linux).ok);
  },
);

t.test('what a killed server has left of a new segment is removed', async (t) => {
  const directory = await installed(t);
  const { log } = pathsOf(directory);
  writeFileSync(join(log, '00000000000000ff.segment.new'), 'x');
  await opened(t, directory);
  t.same(
    readdirSync(log).filter((name) => name.endsWith('.new')),
    [],
  );
});

t.test('a second server is refused, and a failed start lets go of the queue', async (t) => {
  const directory = await installed(t);
  const first = await opened(t, directory);
  for (let tries = 0; tries < 3; tries += 1)
    await t.rejects(CheckpointedQueue.open(directory, NO_CHECKPOINTS, hostWith()), { code: 'queue-in-use' });
  await t.rejects(rebuildQueue(directory, true, hostWith()), { code: 'queue-in-use' });
  t.equal(await put(first, 'm', 10, 'q0'), 'committed');
  await first.close();
  const open = () => readdirSync('/proc/self/fd').length;
  const before = open();
  const kernel = faultyKernel(({ name, path }) => {
    if (name === 'fdatasync' && path.endsWith('/control')) throw errnoError('EIO');
  });
  await t.rejects(CheckpointedQueue.open(directory, NO_CHECKPOINTS, hostWith(kernel)), {
    code: 'sync-failed',
  });
  t.equal(open(), before, 'no file stays open');
  await (await CheckpointedQueue.open(directory, NO_CHECKPOINTS, hostWith())).close();
});

t.test('a start that fails at any call keeps no file open', async (t) => {
  const { directory } = await filled(t, 1);
  const open = () => readdirSync('/proc/self/fd').length;
  const before = open();
  let failed = 0;
  for (let failing = 1; ; failing += 1) {
    let calls = 0;
    const list = (path: string) => {
      calls += 1;
      if (calls === failing) throw errnoError('EMFILE');
      return linux.list(path);
    };
    const start = CheckpointedQueue.open(directory, NO_CHECKPOINTS, hostWith({ list }));
    const queue = await start.catch(() => undefined);
    await queue?.close();
    t.equal(open(), before, `no file stays open, call ${failing}`);
    if (queue !== undefined) break;
    failed += 1;
  }
  t.ok(failed >= 3, 'the log and the slots are listed by the recovery, and the slots again after it');
});

t.test('the directory entry of a new control file is synced', async (t) => {
  const { directory } = await filled(t, 1);
  rmSync(pathsOf(directory).control);
  const synced: string[] = [];
  const kernel = faultyKernel(({ name, path }) => {
    if (name === 'fsync') synced.push(path);
  });
  await opened(t, directory, { host: hostWith(kernel) });
  t.ok(synced.includes(directory));
});
