import t from 'tap';
import { Fifo, makeFifo } from '../../common/platform/fifo.js';
import { runHelper } from '../helper/helper.js';
import { FIELD } from '../index/layout.js';
import { LOCK } from '../index/lock-bytes.js';
import { createHarness, type QueueHarness, takeAll, textsOf, waitUntil } from '../queue/fixtures/harness.js';
import { Pair } from '../queue/pair.js';
import { RING_START } from '../record/data-file.js';
import { smtp } from '../record/fixtures/memory-data.js';
import { SyncClient } from './client.js';
import {
  type Answer,
  decodeAnswers,
  decodeRequests,
  encodeAnswer,
  encodeRequest,
  fifoPaths,
  REQUEST_BYTES,
  type SyncRequest,
} from './tokens.js';

const times = { helperTimeoutMs: 20, requestTimeoutMs: 15_000 };
const range = { offset: RING_START, length: 256 };

/** Opens the pair of a queue without a helper. The test plays the helper through the FIFOs. */
function byHand(t: { teardown(clean: () => unknown): void }, here: QueueHarness) {
  const [directories] = here.settings.pairs;
  if (!directories) throw new Error('a queue has a pair');
  const pair = Pair.open(directories, here.settings);
  const places = fifoPaths(here.pair);
  const requests = new Fifo(places.request, 65_520);
  const confirm = new Fifo(places.confirm(0), 65_520);
  const receipt = new Fifo(places.receipt(0), 65_520);
  t.teardown(() => {
    for (const fifo of [requests, confirm, receipt]) fifo.close();
    pair.close();
  });
  /** Waits for the next requests and returns them. */
  const asked = async (): Promise<SyncRequest[]> => {
    let found: SyncRequest[] = [];
    await waitUntil(() => {
      found = decodeRequests(requests.read());
      return found.length > 0;
    }, 'a request');
    return found;
  };
  const answerTo = ({ incarnation, id }: SyncRequest, more: Partial<Answer> = {}): Buffer =>
    encodeAnswer({ kind: 'confirm', helper: 1, incarnation, id, batch: 1, errno: 0, ...more });
  return { pair, confirm, receipt, asked, answerTo };
}

t.test('a worker accepts only the confirmation that names its request', async (t) => {
  const hand = byHand(t, await createHarness(t));
  const client = new SyncClient(
    hand.pair.directories.directory,
    { slot: 0, incarnation: 7 },
    hand.pair.image,
    times,
  );
  t.teardown(() => client.close());
  let result: string | undefined;
  const synced = client.sync([range]).then(({ state }) => {
    result = state;
  });
  const [request] = await hand.asked();
  if (!request) throw new Error('a request came');
  t.match(request, { slot: 0, incarnation: 7, ...range });
  const forged = [
    hand.answerTo(request, { incarnation: 6 }),
    hand.answerTo(request, { id: request.id + 1 }),
    hand.answerTo(request, { id: request.id - 1 }),
    hand.answerTo(request, { kind: 'receipt' }),
    Buffer.alloc(24, 0xee),
  ];
  for (const token of forged) hand.confirm.write(token);
  await hand.asked();
  t.equal(result, undefined, 'the worker repeats its request instead');
  hand.confirm.write(Buffer.from('seven b'));
  while (result === undefined) {
    for (const again of await Promise.race([hand.asked(), synced.then(() => [])])) {
      hand.confirm.write(hand.answerTo(again));
    }
  }
  t.equal(result, 'synced', 'stray bytes shorter than a token do not prevent it');
});

t.test('a new worker drains the tokens that its predecessor in the slot left', async (t) => {
  const hand = byHand(t, await createHarness(t));
  const stale = { slot: 0, incarnation: 7, id: 1, ...range };
  hand.confirm.write(hand.answerTo(stale));
  hand.receipt.write(hand.answerTo(stale, { kind: 'receipt' }));
  const client = new SyncClient(
    hand.pair.directories.directory,
    { slot: 0, incarnation: 7 },
    hand.pair.image,
    times,
  );
  t.teardown(() => client.close());
  let done = false;
  const synced = client.sync([range]).then(() => {
    done = true;
  });
  const [first] = await hand.asked();
  await hand.asked();
  t.equal(done, false, 'a matching token that arrived before the request does not count');
  if (first) hand.confirm.write(hand.answerTo(first));
  await synced;
});

t.test('a sync of several ranges succeeds when all are confirmed and fails when one fails', async (t) => {
  const hand = byHand(t, await createHarness(t));
  const client = new SyncClient(
    hand.pair.directories.directory,
    { slot: 0, incarnation: 1 },
    hand.pair.image,
    times,
  );
  t.teardown(() => client.close());
  const both = [range, { offset: RING_START + 65_536, length: 512 }];
  const first = client.sync(both);
  for (const request of await hand.asked()) hand.confirm.write(hand.answerTo(request));
  t.same(await first, { state: 'synced' });
  const second = client.sync(both);
  const [one, two] = await hand.asked();
  if (!one || !two) throw new Error('two requests came');
  hand.confirm.write(Buffer.concat([hand.answerTo(one, { errno: 5 }), hand.answerTo(two)]));
  t.same(await second, { state: 'failed', errno: 5 });
});

t.test('a worker sends its request again when the helper was replaced', async (t) => {
  const hand = byHand(t, await createHarness(t));
  const client = new SyncClient(
    hand.pair.directories.directory,
    { slot: 0, incarnation: 1 },
    hand.pair.image,
    times,
  );
  t.teardown(() => client.close());
  const synced = client.sync([range]);
  const [request] = await hand.asked();
  if (!request) throw new Error('a request came');
  Atomics.add(hand.pair.image.words, FIELD.helperIncarnation, 1);
  t.same(await hand.asked(), [request]);
  hand.confirm.write(hand.answerTo(request));
  t.same(await synced, { state: 'synced' });
});

t.test('a worker gives up after its time-out and then ignores the late confirmation', async (t) => {
  const hand = byHand(t, await createHarness(t));
  const soon = { helperTimeoutMs: 5, requestTimeoutMs: 30 };
  const client = new SyncClient(
    hand.pair.directories.directory,
    { slot: 0, incarnation: 1 },
    hand.pair.image,
    soon,
  );
  t.teardown(() => client.close());
  const first = client.sync([range]);
  const [request] = await hand.asked();
  t.same(await first, { state: 'timed-out' });
  const second = client.sync([range]);
  if (request) hand.confirm.write(hand.answerTo(request));
  t.same(await second, { state: 'timed-out' });
});

t.test('a second helper of a data file is refused, and the first keeps working', async (t) => {
  const here = await createHarness(t);
  await here.helper();
  t.match((await here.helper()).firstLine, { code: 'second-helper' });
  await t.rejects(
    runHelper(here.settings, 0, new AbortController().signal, () => undefined),
    {
      code: 'second-helper',
      exitCode: 2,
    },
  );
  await t.rejects(
    runHelper(here.settings, 9, new AbortController().signal, () => undefined),
    {
      code: 'bad-setting',
    },
  );
  const queue = await here.open();
  t.match(await queue.enqueue([smtp('x')]), { outcome: 'confirmed' });
});

t.test('the helper skips invalid requests and serves valid ones under strict batch rules', async (t) => {
  const here = await createHarness(t, {
    sync: { maxGapBytes: 0, maxUnconfirmedBatches: 1, maxGatherMs: 2, maxIdleMs: 1 },
  });
  await here.helper();
  const requests = new Fifo(fifoPaths(here.pair).request, 65_520);
  t.teardown(() => requests.close());
  const nowhere: SyncRequest[] = [
    { slot: 999, incarnation: 1, id: 1, ...range },
    { slot: 0, incarnation: 1, id: 1, offset: 2 ** 40, length: 1 },
    { slot: 0, incarnation: 1, id: 2, offset: RING_START, length: 0 },
    { slot: 1, incarnation: 1, id: 3, offset: RING_START, length: 2 ** 20 },
  ];
  for (const request of nowhere) requests.write(encodeRequest(request));
  requests.write(Buffer.alloc(REQUEST_BYTES, 0x55));
  const [queue, worker] = [await here.open(), await here.worker()];
  const outcomes = await Promise.all([
    queue.enqueue([smtp('mine')]),
    worker.ask({ do: 'enqueue', texts: ['theirs'] }),
    queue.enqueue([smtp('too')]),
  ]);
  t.match(outcomes, [{ outcome: 'confirmed' }, { outcome: 'confirmed' }, { outcome: 'confirmed' }]);
  t.same(textsOf(takeAll(queue)).sort(), ['mine', 'theirs', 'too']);
});

t.test('a helper that receives SIGTERM answers every request that it has received', async (t) => {
  // No rule makes a batch due, and no request fits into the batch of another: only the stop writes them, one
  // per batch.
  const here = await createHarness(t, {
    sync: { maxGatherMs: 60_000, maxGapBytes: 0, writeOnMisfit: false, helperTimeoutMs: 60_000 },
  });
  const helper = await here.helper();
  const hand = byHand(t, here);
  const answers: Answer[] = [];
  const places = fifoPaths(here.pair);
  const requests = new Fifo(places.request, 65_520);
  t.teardown(() => requests.close());
  for (let id = 1; id <= 4; id += 1) {
    requests.write(
      encodeRequest({ slot: 0, incarnation: 1, id, offset: RING_START + id * 65_536, length: 256 }),
    );
  }
  await waitUntil(() => {
    answers.push(...decodeAnswers(hand.receipt.read(), 'receipt'));
    return answers.length === 4;
  }, 'four receipts');
  t.equal(hand.confirm.read().length, 0, 'no request is confirmed yet');
  await helper.kill('SIGTERM');
  const confirmed = decodeAnswers(hand.confirm.read(), 'confirm');
  t.same(confirmed.map(({ id, errno }) => [id, errno]).sort(), [
    [1, 0],
    [2, 0],
    [3, 0],
    [4, 0],
  ]);
  t.same(new Set(confirmed.map(({ batch }) => batch)).size, 4, 'the helper wrote four batches');
});

t.test('a regular file in the place of a FIFO is refused', async (t) => {
  const here = await createHarness(t);
  t.throws(() => makeFifo(`${here.pair}/queue.data`), { code: 'not-a-queue', exitCode: 2 });
});

t.test('a write into a full FIFO returns false instead of blocking', async (t) => {
  const here = await createHarness(t);
  const fifo = new Fifo(fifoPaths(here.pair).confirm(5), 65_520);
  t.teardown(() => fifo.close());
  let written = 0;
  while (fifo.write(Buffer.alloc(4096))) written += 1;
  t.equal(written, 16);
  fifo.drain();
  t.equal(fifo.read().length, 0);
});

t.test('a lock is exclusive or shared, and ends when its file is closed', async (t) => {
  const here = await createHarness(t);
  const [directories] = here.settings.pairs;
  if (!directories) throw new Error('a queue has a pair');
  const [a, b] = [Pair.open(directories, here.settings), Pair.open(directories, here.settings)];
  t.equal(a.locks.tryLock(LOCK.helper), true);
  t.equal(b.locks.tryLock(LOCK.helper), false);
  t.equal(b.locks.isHeldElsewhere(LOCK.helper), true);
  t.equal(a.locks.isHeldElsewhere(LOCK.helper), false, 'the lock of this process does not count');
  t.equal(b.locks.isHeldElsewhere(LOCK.users), true, 'both hold the shared lock');
  a.close();
  t.equal(b.locks.tryLock(LOCK.helper), true);
  b.close();
});
