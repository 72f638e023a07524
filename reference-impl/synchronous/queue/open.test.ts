import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { LockFile } from '../../common/platform/locks.js';
import { LOCK } from '../index/lock-bytes.js';
import { smtp } from '../record/fixtures/memory-data.js';
import { createHarness, takeAll, textsOf } from './fixtures/harness.js';
import { inspectQueue } from './inspect.js';
import { Pair } from './pair.js';
import { pairPaths } from './paths.js';
import { hostPlatform } from './platform.js';
import type { LockedMessage } from './types.js';
import { verifyQueue } from './verify.js';

const lines = async (source: AsyncGenerator<object>): Promise<Record<string, unknown>[]> => {
  const found: Record<string, unknown>[] = [];
  for await (const line of source) found.push(line as Record<string, unknown>);
  return found;
};

t.test('confirmed messages are in the data file, and are taken in order and unchanged', async (t) => {
  const here = await createHarness(t);
  await here.helper();
  const queue = await here.open();
  const outcome = await queue.enqueue([smtp('one'), smtp('two', { destination: 'host:25' })]);
  t.equal(outcome.outcome, 'confirmed');
  t.ok(readFileSync(join(here.pair, 'queue.data')).includes('one'));
  const sms = { type: 'sms' as const, sender: 491_700n, recipients: [1n], data: Buffer.from('three') };
  t.equal((await queue.enqueue([sms])).outcome, 'confirmed');
  const taken = takeAll(queue);
  t.same(
    taken.map(({ body }) => body),
    [smtp('one'), smtp('two', { destination: 'host:25' }), sms],
  );
  t.same(
    taken.map(({ number }) => number),
    [...taken.map(({ number }) => number)].sort(),
  );
  t.same(takeAll(queue), [], 'locked messages are not taken again');
  queue.unlock(taken.slice(0, 1), 'answered');
  const again = takeAll(queue);
  t.match(again, [{ retryCount: 1 }]);
  t.ok(again[0] && again[0].lastRetryMs > 0);
  queue.consume([...again, ...taken.slice(1)]);
  t.match(queue.stats(), { live: 0, locked: 0, usedBytes: 0 });
  t.equal((await verifyQueue(here.settings)).ok, true);
});

t.test('enqueue calls in one turn share one round, and each gets its own outcome', async (t) => {
  const here = await createHarness(t);
  await here.helper();
  const queue = await here.open();
  const outcomes = await Promise.all(Array.from({ length: 100 }, (_, n) => queue.enqueue([smtp(`m${n}`)])));
  t.ok(outcomes.every(({ outcome }) => outcome === 'confirmed'));
  t.same(await queue.enqueue([]), { outcome: 'confirmed', numbers: [] });
  t.same(textsOf(takeAll(queue)).sort(), Array.from({ length: 100 }, (_, n) => `m${n}`).sort());
});

t.test('take obeys its limits of count and bytes, and takes only messages that are due', async (t) => {
  const here = await createHarness(t);
  await here.helper();
  const queue = await here.open();
  await queue.enqueue(Array.from({ length: 10 }, (_, n) => smtp(`${n}`.repeat(1000))));
  const take = (count: number, bytes: number): LockedMessage[] =>
    queue.take({ count, bytes, due: () => true });
  t.equal(take(3, 2 ** 20).length, 3);
  t.equal(take(100, 2500).length, 2);
  t.equal(take(100, 1).length, 1, 'a message that is larger than the limit is taken alone');
  t.same(queue.take({ count: 100, bytes: 2 ** 20, due: () => false }), []);
  t.equal(take(100, 2 ** 20).length, 4);
});

t.test(
  'a full queue rejects messages, loses none, and accepts messages again when there is space',
  async (t) => {
    const here = await createHarness(t);
    await here.helper();
    const queue = await here.open();
    const body = smtp('x'.repeat(40_000));
    let stored = 0;
    let last = await queue.enqueue([body]);
    for (; last.outcome === 'confirmed'; stored += 1) last = await queue.enqueue([body]);
    t.match(last, { outcome: 'rejected', reason: 'no-space' });
    t.equal(stored, Math.floor((2 ** 20 - 8192) / 40_192), 'all the space was used');
    const taken = takeAll(queue);
    t.equal(taken.length, stored);
    queue.consume(taken.slice(0, 2));
    t.equal((await queue.enqueue([body, body])).outcome, 'confirmed');
    t.match(await queue.enqueue([body]), { outcome: 'rejected', reason: 'no-space' });
    queue.unlock(taken.slice(2), 'none');
    t.equal(takeAll(queue).length, stored);
    t.same((await verifyQueue(here.settings)).problems, []);
  },
);

t.test(
  'a message is rejected without a free index entry, when it is too large, or when it cannot be encoded',
  async (t) => {
    const here = await createHarness(t, { entries: 4 });
    await here.helper();
    const queue = await here.open();
    t.equal((await queue.enqueue([smtp('1'), smtp('2'), smtp('3')])).outcome, 'confirmed');
    t.match(await queue.enqueue([smtp('4'), smtp('5')]), { outcome: 'rejected', reason: 'no-entry' });
    t.equal(
      (await queue.enqueue([smtp('4')])).outcome,
      'confirmed',
      'none of the rejected messages was stored',
    );
    t.match(await queue.enqueue([smtp(Buffer.alloc(2 ** 20))]), { outcome: 'rejected', reason: 'too-large' });
    const none = { type: 'smtp' as const, sender: '', recipients: ['a\nb'], data: Buffer.alloc(0) };
    await t.rejects(queue.enqueue([none]), { code: 'bad-record' });
    queue.consume(takeAll(queue));
    t.equal((await queue.enqueue([smtp('6')])).outcome, 'confirmed');
  },
);

t.test('both pairs are used, and a message is rejected only when both are full', async (t) => {
  const here = await createHarness(t, {
    pairs: [{ directory: '0' }, { directory: '1', indexDirectory: 'elsewhere' }],
    entries: 8,
  });
  await Promise.all([here.helper(), here.helper({ pair: 1 })]);
  const queue = await here.open();
  const outcomes = await Promise.all(Array.from({ length: 16 }, (_, n) => queue.enqueue([smtp(`${n}`)])));
  t.equal(outcomes.filter(({ outcome }) => outcome === 'confirmed').length, 16);
  t.match(await queue.enqueue([smtp('x')]), { outcome: 'rejected', reason: 'no-entry' });
  const taken = takeAll(queue);
  t.same(
    [0, 1].map((pair) => taken.filter((message) => message.pair === pair).length),
    [8, 8],
  );
  queue.consume(taken.slice(0, 1));
  t.equal((await queue.enqueue([smtp('y')])).outcome, 'confirmed');
  t.equal((await verifyQueue(here.settings)).ok, true);
});

t.test('bury moves a message to the dead-letter queue; when that is full, the message stays', async (t) => {
  const here = await createHarness(t, { deadLetter: { entries: 1 } });
  await here.helper();
  const queue = await here.open();
  await queue.enqueue([smtp('first'), smtp('second')]);
  const [first, second] = takeAll(queue);
  if (!first || !second) throw new Error('two messages were stored');
  const failure = { reason: 'refused', replies: ['550 no'] } as const;
  t.equal(await queue.bury(first, failure), 'buried');
  t.equal(await queue.bury(second, failure), 'full', 'the dead-letter queue has no free entry');
  queue.unlock([second], 'parked');
  t.match(queue.parked(), { messages: 1 });
  t.match(takeAll(queue), [{ number: second.number, retryCount: 1 }]);
  t.match(queue.stats(), { live: 1, dead: 1 });
  await queue.close();
  const shown = await lines(inspectQueue(here.settings));
  t.match(
    shown.filter(({ pair }) => pair === 'dead'),
    [{ messages: 1 }, { sender: 'a@example.org', status: 'ready' }],
  );
});

t.test(
  'inspect yields an object per pair and per message, of a queue in use and of a stopped one',
  async (t) => {
    const here = await createHarness(t);
    const helper = await here.helper();
    const queue = await here.open();
    await queue.enqueue([smtp('hello', { destination: 'h:25' })]);
    await queue.enqueue([{ type: 'sms', sender: 5n, recipients: [6n, 7n], data: Buffer.from('sms') }]);
    queue.unlock(takeAll(queue).slice(0, 1), 'answered');
    const expected = [
      { pair: '0', messages: 2, entries: 256, keptAside: [] },
      {
        type: 'smtp',
        recipients: ['b@example.net'],
        destination: 'h:25',
        tries: 1,
        locked: false,
        messageBytes: 5,
      },
      { type: 'sms', sender: '5', recipients: ['6', '7'], locked: true, lastTry: null },
      { pair: 'dead', messages: 0 },
    ];
    t.match(await lines(inspectQueue(here.settings)), expected);
    t.match(await lines(inspectQueue(here.settings)), [{ inUse: true }]);
    await queue.close();
    await helper.kill('SIGTERM');
    const stopped = await lines(inspectQueue(here.settings));
    t.match(stopped, [{ ...expected[0], inUse: false }]);
    t.not(stopped[0]?.lastSync, null, 'the index was synced when the worker closed the queue');
  },
);

t.test('the listener is called when messages arrive, also those of other processes', async (t) => {
  const here = await createHarness(t);
  await here.helper();
  const queue = await here.open();
  const other = await here.worker();
  const told = new Promise<string[]>((resolve) => {
    queue.onArrival(() => {
      const taken = takeAll(queue);
      if (taken.length > 0) resolve(textsOf(taken));
    });
  });
  t.match(await other.ask({ do: 'enqueue', texts: ['from afar'] }), { outcome: 'confirmed' });
  t.same(await told, ['from afar']);
});

t.test('opening a queue without a free worker slot fails with no-worker-slot', async (t) => {
  const here = await createHarness(t, { workerSlots: 1 });
  const queue = await here.open();
  await t.rejects(here.open(), { code: 'no-worker-slot', exitCode: 2 });
  await queue.close();
  const next = await here.open();
  t.equal(next.stats().live, 0, 'a slot that was given back can be taken again');
});

t.test(
  'when a process is stopped while it opens the queue, another one fails with mutex-held after a time',
  async (t) => {
    const { settings } = await createHarness(t);
    const [directories] = settings.pairs;
    if (directories === undefined) return;
    const stopped = new LockFile(pairPaths(directories).lock);
    t.teardown(() => stopped.close());
    t.ok(stopped.tryLock(LOCK.opening));
    // Let each reading of the clock add a second, so that the timeout of more than a minute passes at once.
    let nowMs = 0;
    const monotonicMs = () => (nowMs += 1000);
    const ground = { ...hostPlatform, kernel: { ...hostPlatform.kernel, monotonicMs } };
    t.throws(() => Pair.open(directories, settings, ground), {
      code: 'mutex-held',
      exitCode: 4,
      message: /has held .* for \d+ ms: is it stopped\?/,
    });
    t.ok(nowMs > 60_000, 'the second process waited for more than a minute');
    stopped.unlock(LOCK.opening);
    const pair = Pair.open(directories, settings, ground);
    t.ok(pair.restore, 'the failed attempt left nothing locked');
    pair.close();
  },
);
