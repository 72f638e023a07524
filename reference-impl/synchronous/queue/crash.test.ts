import { closeSync, openSync, readSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { RING_START } from '../record/data-file.js';
import { smtp } from '../record/fixtures/memory-data.js';
import {
  createHarness,
  hasStrace,
  isRoot,
  type QueueHarness,
  stateOf,
  strace,
  takeAll,
  textsOf,
  waitUntil,
} from './fixtures/harness.js';
import { verifyQueue } from './verify.js';

const withStrace = hasStrace ? {} : { skip: 'strace is not installed, or may not trace' };
const asRoot = isRoot ? {} : { skip: 'needs root' };

const messages = (count: number, name: string): string[] =>
  Array.from({ length: count }, (_, n) => `${name} ${n}`);

async function problems({ settings }: QueueHarness): Promise<string[]> {
  return (await verifyQueue(settings)).problems;
}

/** Returns whether a text is in the data file. A message is copied there before it is synced. */
function isCopied({ pair }: QueueHarness, text: string): boolean {
  const fd = openSync(join(pair, 'queue.data'), 'r');
  try {
    const bytes = Buffer.alloc(64 * 1024);
    readSync(fd, bytes, 0, bytes.length, RING_START);
    return bytes.includes(text);
  } finally {
    closeSync(fd);
  }
}

t.test('after a helper is killed, its successor confirms the messages that wait', async (t) => {
  const here = await createHarness(t);
  const helper = await here.helper();
  const worker = await here.worker();
  t.match(await worker.ask({ do: 'enqueue', texts: ['before'] }), { outcome: 'confirmed' });
  await helper.kill();
  worker.send({ do: 'enqueue', texts: ['meanwhile'] });
  await waitUntil(() => isCopied(here, 'meanwhile'));
  await here.helper();
  t.match(await worker.process.line(), { outcome: 'confirmed' });
  t.same(await worker.takeTexts(), ['before', 'meanwhile']);
  t.same(await problems(here), []);
});

t.test('without a helper no message is confirmed, and one that timed out is not delivered', async (t) => {
  const here = await createHarness(t, { sync: { requestTimeoutMs: 150 } });
  const queue = await here.open();
  t.match(await queue.enqueue([smtp('without a helper')]), { outcome: 'indefinite' });
  t.same(takeAll(queue), []);
  t.match(queue.stats(), { live: 0, usedBytes: 0 });
  await here.helper();
  t.match(await queue.enqueue([smtp('with a helper')]), { outcome: 'confirmed' });
  t.same(textsOf(takeAll(queue)), ['with a helper']);
});

t.test(
  'a helper that is stopped for a while loses no message and confirms all when it continues',
  async (t) => {
    const here = await createHarness(t);
    const helper = await here.helper();
    const worker = await here.worker();
    await helper.pause(true);
    worker.send({ do: 'enqueue', texts: messages(5, 'm') });
    await waitUntil(() => isCopied(here, 'm 4'));
    t.same(
      await (await here.worker()).takeTexts(),
      [],
      'no worker may deliver them before they are confirmed',
    );
    await helper.pause(false);
    t.match(await worker.process.line(), { outcome: 'confirmed' });
    t.same(await worker.takeTexts(), messages(5, 'm'));
  },
);

t.test('when a helper is killed in msync, its successor confirms every message', withStrace, async (t) => {
  const here = await createHarness(t);
  const worker = await here.worker();
  for (const [round, when] of [1, 2, 3].entries()) {
    const helper = await here.helper({ wrapper: strace(`msync:signal=KILL:when=${when}`) });
    // Expect a confirmation of every message: on a slow machine a request is sent again, and the msync that
    // kills the helper may belong to an earlier message.
    for (let n = 1; n <= when; n += 1) worker.send({ do: 'enqueue', texts: [`round ${round}, ${n}`] });
    await helper.exited();
    const next = await here.helper();
    for (let n = 1; n <= when; n += 1) {
      const answer = await worker.process.line();
      t.match(
        answer,
        { outcome: 'confirmed' },
        `message ${n} is confirmed after the helper was killed in msync number ${when}`,
      );
    }
    await next.kill();
  }
  t.equal((await worker.takeTexts()).length, 6);
});

t.test(
  'a message whose msync fails with EIO is indefinite and never delivered, and later messages are confirmed',
  withStrace,
  async (t) => {
    // Use long timeouts, so that no request is sent twice on a slow machine: the second msync must belong to
    // the second message.
    const here = await createHarness(t, { sync: { helperTimeoutMs: 10_000, confirmationTimeoutMs: 10_000 } });
    // Open the queue here first: the restore also calls msync, and the helper must not be the process that
    // does it.
    const queue = await here.open();
    await here.helper({ wrapper: strace('msync:error=EIO:when=2') });
    t.match(await queue.enqueue([smtp('one')]), { outcome: 'confirmed' });
    const failed = await queue.enqueue([smtp('two')]);
    t.match(failed, { outcome: 'indefinite', detail: /errno 5/ });
    t.match(await queue.enqueue([smtp('three')]), { outcome: 'confirmed' });
    t.same(textsOf(takeAll(queue)), ['one', 'three'], 'the message whose sync failed is never delivered');
    t.same(await problems(here), []);
  },
);

t.test(
  'when the msync of the dead-letter queue fails, the message stays in the queue',
  withStrace,
  async (t) => {
    const here = await createHarness(t);
    await here.helper();
    // Restore the dead letters in this process: the restore also calls msync, and the worker's first msync
    // must be the one that stores the dead letter.
    await here.open();
    const worker = await here.worker({ wrapper: strace('msync:error=EIO:when=1') });
    await worker.ask({ do: 'enqueue', texts: ['one'] });
    t.same(await worker.takeTexts(), ['one']);
    t.same(await worker.ask({ do: 'bury' }), { buried: 'failed' });
    t.match(await worker.ask({ do: 'take', count: 9 }), { taken: [{ text: 'one', tries: 1 }] });
    t.same(await worker.ask({ do: 'bury' }), { buried: 'buried' });
    t.match(await worker.ask({ do: 'stats' }), { live: 0, dead: 1 });
  },
);

t.test(
  'a worker killed inside the mutex leaves half-changed lists, and the next owner repairs them',
  async (t) => {
    const here = await createHarness(t);
    await here.helper();
    const queue = await here.open();
    await queue.enqueue([smtp('one'), smtp('two')]);
    const worker = await here.worker();
    t.equal(await worker.ask({ do: 'die-in-mutex' }), undefined, 'it died inside the mutex');
    t.match(queue.stats(), { live: 2 });
    t.same(textsOf(takeAll(queue)), ['one', 'two']);
    t.same(await problems(here), []);
  },
);

t.test(
  'while a worker is stopped inside the mutex, others reject messages, lose none, and continue when it does',
  async (t) => {
    const here = await createHarness(t);
    await here.helper();
    const worker = await here.worker();
    await worker.ask({ do: 'enqueue', texts: ['one', 'two'] });
    t.same(await worker.takeTexts(1), ['one']);
    const holder = await here.worker();
    holder.send({ do: 'stop-in-mutex' });
    await waitUntil(() => stateOf(holder.process.child.pid ?? 0) === 'T');
    const refused = { outcome: 'rejected', reason: 'mutex-held' };
    t.match(await worker.ask({ do: 'enqueue', texts: ['three'] }), refused);
    t.match(await worker.ask({ do: 'enqueue', texts: ['four'] }), refused);
    await worker.ask({ do: 'consume' });
    t.same(await worker.takeTexts(), [], 'no worker can walk the list');
    await holder.process.pause(false);
    t.match(await holder.process.line(), { went: 'on' });
    t.match(await worker.ask({ do: 'enqueue', texts: ['five'] }), { outcome: 'confirmed' });
    t.match(
      await worker.ask({ do: 'stats' }),
      { live: 2 },
      'the message consumed meanwhile is removed from the list',
    );
    t.same(await worker.takeTexts(), ['two', 'five']);
    t.same(await problems(here), []);
  },
);

t.test(
  'after a worker is stopped inside the mutex and killed there, the next owner repairs the lists',
  async (t) => {
    const here = await createHarness(t);
    await here.helper();
    const worker = await here.worker();
    await worker.ask({ do: 'enqueue', texts: ['one'] });
    const holder = await here.worker();
    holder.send({ do: 'stop-in-mutex' });
    await waitUntil(() => stateOf(holder.process.child.pid ?? 0) === 'T');
    t.match(await worker.ask({ do: 'enqueue', texts: ['two'] }), { reason: 'mutex-held' });
    await holder.process.kill();
    t.match(await worker.ask({ do: 'enqueue', texts: ['three'] }), { outcome: 'confirmed' });
    t.same(await worker.takeTexts(), ['one', 'three']);
    t.same(await problems(here), []);
  },
);

t.test('after a worker is killed, others deliver exactly the messages that it had locked', async (t) => {
  const here = await createHarness(t);
  await here.helper();
  const queue = await here.open();
  const worker = await here.worker();
  await queue.enqueue(messages(6, 'm').map((text) => smtp(text)));
  t.same(await worker.takeTexts(2), ['m 0', 'm 1']);
  await worker.ask({ do: 'consume' });
  t.same(await worker.takeTexts(2), ['m 2', 'm 3']);
  const mine = takeAll(queue);
  t.same(textsOf(mine), ['m 4', 'm 5'], 'while the worker is alive, no other worker gets its messages');
  await worker.process.kill();
  t.same(textsOf(takeAll(queue)), ['m 2', 'm 3']);
});

t.test(
  'when a worker is killed before its messages are confirmed, they are dropped and their space is freed',
  async (t) => {
    const here = await createHarness(t);
    const worker = await here.worker();
    worker.send({ do: 'enqueue', texts: messages(3, 'unconfirmed') });
    await waitUntil(() => isCopied(here, 'unconfirmed 2'));
    const queue = await here.open();
    t.match(queue.stats(), { live: 3 });
    t.same(takeAll(queue), [], 'unconfirmed messages are not delivered');
    await worker.process.kill();
    t.same(takeAll(queue), []);
    t.match(queue.stats(), { live: 0, usedBytes: 0 });
    t.same(await problems(here), []);
  },
);

t.test(
  'the next worker in a slot does not own the locks of the killed one, and takes its messages',
  async (t) => {
    // A process id would not name the owner of a lock: the kernel uses process ids again.
    const here = await createHarness(t, { workerSlots: 2 });
    await here.helper();
    const first = await here.worker();
    await first.ask({ do: 'enqueue', texts: messages(3, 'm') });
    t.equal((await first.takeTexts()).length, 3);
    await first.process.kill();
    const second = await here.worker();
    t.same(await second.takeTexts(), messages(3, 'm'), 'the slot is the same, its incarnation is not');
  },
);

t.test('locks hold across pid namespaces in which every worker has process id 1', asRoot, async (t) => {
  // A robust pthread mutex compares thread ids, so it would take both workers for one.
  const here = await createHarness(t);
  await here.helper();
  const wrapper = ['unshare', '-p', '-f', '--mount-proc', '--kill-child'];
  const [a, b] = await Promise.all([here.worker({ wrapper }), here.worker({ wrapper })]);
  t.match(await a.ask({ do: 'enqueue', texts: messages(4, 'm') }), { outcome: 'confirmed' });
  t.same(await a.takeTexts(2), ['m 0', 'm 1']);
  t.same(await b.takeTexts(), ['m 2', 'm 3'], 'a worker does not get what another process 1 has locked');
  await a.process.kill();
  const seen: string[] = [];
  for (let tries = 0; seen.length < 2 && tries < 2000; tries += 1) seen.push(...(await b.takeTexts()));
  t.same(
    seen,
    ['m 0', 'm 1'],
    'the messages are free after the kernel has released the lock of the killed worker',
  );
});

t.test(
  'after all processes are killed, every message that was confirmed and not consumed is delivered',
  async (t) => {
    const here = await createHarness(t);
    const helper = await here.helper();
    const workers = await Promise.all([here.worker(), here.worker()]);
    for (const [n, worker] of workers.entries())
      await worker.ask({ do: 'enqueue', texts: messages(20, `w${n}`) });
    const consumed = await workers[0]?.takeTexts(7);
    await workers[0]?.ask({ do: 'consume' });
    await workers[1]?.takeTexts(5);
    await Promise.all([helper, ...workers.map(({ process }) => process)].map((each) => each.kill()));
    t.same(await problems(here), [], 'the lists are well formed before the restore');
    const queue = await here.open();
    t.match(queue.restores, [{ indexProblem: null, restored: 33, uncertain: 0, unfinished: 0, damaged: [] }]);
    const all = [...messages(20, 'w0'), ...messages(20, 'w1')];
    t.same(textsOf(takeAll(queue)).sort(), all.filter((text) => !consumed?.includes(text)).sort());
    await queue.close();
    t.match(
      (await here.open()).restores,
      [{ restored: 33, consumed: 7, uncertain: 0 }],
      'a second restore finds the same',
    );
  },
);

t.test('message numbers are never used twice, even after the index was lost', async (t) => {
  const here = await createHarness(t);
  const numbers = new Set<bigint>();
  for (let round = 0; round < 4; round += 1) {
    const helper = await here.helper();
    const queue = await here.open();
    const outcome = await queue.enqueue([smtp('x'), smtp('y')]);
    if (outcome.outcome !== 'confirmed') throw new Error(outcome.outcome);
    for (const number of outcome.numbers) numbers.add(number);
    await queue.close();
    await helper.kill();
    if (round % 2 === 1) rmSync(join(here.pair, 'queue.index'));
  }
  t.equal(numbers.size, 8);
});
