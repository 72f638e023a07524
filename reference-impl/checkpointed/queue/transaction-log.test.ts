import { mkdirSync } from 'node:fs';
import t from 'tap';
import type { Kernel } from '../../common/platform/kernel.js';
import { linux } from '../../common/platform/linux.js';
import { faultyKernel } from '../fixtures/faulty-kernel.js';
import { errnoError, type Test, temporaryDirectory } from '../fixtures/queue.js';
import { Log, type StagedOperation } from '../log/log.js';
import { OPERATION } from '../log/record.js';
import { SegmentRing } from '../log/segment-ring.js';
import { type TransactionHandlers, TransactionLog } from './transaction-log.js';
import type { CommitOutcome } from './types.js';

const SEGMENT_BYTES = 4096;

const staged = (id: string, bytes: number): StagedOperation => ({
  operation: OPERATION.put,
  queue: 1,
  number: 0,
  id,
  idBytes: Buffer.byteLength(id),
  body: Buffer.alloc(bytes, id),
  position: 0,
});

const handlers: TransactionHandlers<StagedOperation> = {
  splice: () => undefined,
  onCommitted: () => undefined,
  takeBack: () => undefined,
  onFailed: () => undefined,
};

function logIn(t: Test, kernel: Kernel = linux): Log {
  const directory = `${temporaryDirectory(t)}/log`;
  mkdirSync(directory);
  const ring = new SegmentRing(directory, SEGMENT_BYTES, [], kernel);
  const geometry = { directory, segmentBytes: SEGMENT_BYTES, segments: 8, key: { low: 1, high: 2 } };
  const log = new Log(geometry, ring, { generation: 1, position: 0 }, kernel);
  t.teardown(() => log.close());
  return log;
}

t.test('transactions that are logged and cannot be spliced are told that nobody knows', async (t) => {
  const failure = new Error('made by the test');
  const failed: unknown[] = [];
  const transactions = new TransactionLog(
    logIn(t),
    {
      ...handlers,
      splice: () => {
        throw failure;
      },
      onFailed: (error) => failed.push(error),
    },
    linux,
  );
  const outcomes = ['a', 'b'].map((id) => transactions.commit([staged(id, 10)]).catch((error) => error));
  await transactions.whenIdle();
  t.same(failed, [failure]);
  for (const outcome of outcomes) t.equal(await Promise.race([outcome, 'still waiting']), failure);
  await t.rejects(transactions.commit([staged('c', 10)]), failure);
  t.equal(transactions.redoPosition, 0, 'a checkpoint may not forget them');
});

t.test('a transaction that got no segment takes no space from those that wait', async (t) => {
  let whenRefused: (() => void) | undefined;
  const kernel = faultyKernel(({ name, path }) => {
    if (name !== 'open' || !path.endsWith('.segment') || whenRefused === undefined) return;
    const refuse = whenRefused;
    whenRefused = undefined;
    refuse();
    throw errnoError('EMFILE');
  });
  const log = logIn(t, { ...linux, ...kernel });
  const free: number[] = [];
  const takenBack: string[] = [];
  const transactions = new TransactionLog(
    log,
    {
      ...handlers,
      splice: () => free.push(transactions.freeBytes() - log.freeBytes),
      takeBack: (refused) => takenBack.push(...refused.flat().map(({ id }) => id)),
      onFailed: (error) => t.fail(String(error)),
    },
    linux,
  );
  let waiting: Promise<CommitOutcome> | undefined;
  whenRefused = () => {
    waiting = transactions.commit([staged('waiting', 100)]);
  };
  t.match(await transactions.commit([staged('refused', 3000)]), { outcome: 'rejected', reason: 'full' });
  t.same(takenBack, ['refused']);
  t.same(await waiting, { outcome: 'committed' });
  t.same(free, [0]);
});

t.test('a batch may block the thread only if no transaction came during an earlier sync', async (t) => {
  const blocking: boolean[] = [];
  let onSync: () => void = () => undefined;
  const log = logIn(t, {
    ...linux,
    // A clock that stands still: each sync is quick.
    monotonicMs: () => 0,
    fdatasync: async (fd, isBlocking = false) => {
      blocking.push(isBlocking);
      await linux.fdatasync(fd, isBlocking);
      onSync();
    },
  });
  // The first sync of a log, and that of a new segment, never block.
  await log.prepareNext();
  blocking.length = 0;
  const transactions = new TransactionLog(log, handlers, linux);
  const commitTwo = () => Promise.all(['a', 'b'].map((id) => transactions.commit([staged(id, 10)])));
  await commitTwo();
  await commitTwo();
  t.same(blocking, [false, true]);
  onSync = () => {
    onSync = () => undefined;
    void transactions.commit([staged('meanwhile', 10)]);
    void transactions.commit([staged('meanwhile', 10)]);
  };
  await commitTwo();
  await transactions.whenIdle();
  t.same(blocking, [false, true, true, false], 'one came during the third');
  for (let round = 0; round < 40; round += 1) await commitTwo();
  t.ok(blocking.slice(5).filter((isBlocking) => !isBlocking).length >= 1, 'this is looked at again');
});

t.test(
  'transactions of one batch have one promise, and the memory of all is counted until it settles',
  async (t) => {
    const transactions = new TransactionLog(logIn(t), handlers, linux);
    const first = transactions.commit([staged('a', 10)], 100);
    const second = transactions.commit([staged('b', 10)], 50);
    t.equal(second, first);
    t.equal(transactions.memoryBytes, 150);
    await first;
    t.equal(transactions.memoryBytes, 0);
    t.not(transactions.commit([staged('c', 10)]), first);
    await transactions.whenIdle();
  },
);
