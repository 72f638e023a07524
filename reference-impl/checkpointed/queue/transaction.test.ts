import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { linux } from '../../common/platform/linux.js';
import { consume, installed, killed, opened, put, storedIds } from '../fixtures/queue.js';
import { listSegments, segmentPath } from '../log/segment-ring.js';
import { maxMessageBytes, pathsOf, readSettings } from '../settings.js';

t.test(
  'puts are ready, and consumptions are gone, only after the commit, also for a successor',
  async (t) => {
    const directory = await installed(t);
    const queue = await opened(t, directory);
    await put(queue, 'old', 10, 'q0');
    const transaction = queue.begin();
    transaction.put('new', Buffer.from('x'), 'q1');
    t.equal(transaction.take('q0')?.id, 'old');
    t.equal(queue.take('q1'), undefined, 'nobody sees a staged message');
    t.equal(queue.take('q0'), undefined, 'nobody gets a taken message');
    t.same(storedIds(killed(t, directory)), { q0: ['old'] });
    t.same(await transaction.commit(), { outcome: 'committed' });
    t.same(storedIds(killed(t, directory)), { q1: ['new'] });
    t.equal(queue.take('q1')?.id, 'new');
    t.throws(() => transaction.put('late', Buffer.alloc(0)), { code: 'assertion' });
  },
);

t.test('a rollback gives messages back at their old places', async (t) => {
  const queue = await opened(t, await installed(t));
  for (const id of ['a', 'b', 'c']) await put(queue, id, 10, 'q0');
  const transaction = queue.begin();
  transaction.put('x', Buffer.alloc(0), 'q0');
  t.equal(transaction.take('q0')?.id, 'a');
  transaction.rollback();
  const order = [];
  for (let id = await consume(queue, 'q0'); id !== undefined; id = await consume(queue, 'q0')) order.push(id);
  t.same(order, ['a', 'b', 'c']);
});

t.test('a torn transaction is restored as a whole or not at all, wherever it is torn', async (t) => {
  const directory = await installed(t, { queues: 3 });
  const queue = await opened(t, directory);
  await put(queue, 'old', 10, 'q0');
  const before = readFileSync(segmentPath(pathsOf(directory).log, 4));
  const transaction = queue.begin();
  transaction.take('q0');
  for (const name of ['q1', 'q2']) transaction.put(`in-${name}`, Buffer.alloc(30, name), name);
  await transaction.commit();
  const copy = killed(t, directory);
  const path = segmentPath(pathsOf(copy).log, 4);
  const after = readFileSync(path);
  const end = after.findLastIndex((byte, at) => byte !== before[at]) + 1;
  const start = after.findIndex((byte, at) => byte !== before[at]);
  t.ok(end - start > 250, 'the transaction is in this segment');
  for (let torn = start; torn < end; torn += 1) {
    writeFileSync(path, Buffer.concat([after.subarray(0, torn), before.subarray(torn)]));
    t.same(storedIds(copy), { q0: ['old'] }, `torn at byte ${torn}`);
  }
  writeFileSync(path, after);
  t.same(storedIds(copy), { q1: ['in-q1'], q2: ['in-q2'] });
});

t.test('nothing of a rejected transaction happens, and its messages are ready again', async (t) => {
  const directory = await installed(t);
  const queue = await opened(t, directory);
  await put(queue, 'old', 10, 'q0');
  const max = maxMessageBytes(readSettings(directory, linux));
  for (const [id, bytes, name, reason] of [
    ['good', 1, 'nowhere', 'no-such-queue'],
    ['large', max + 1, 'q1', 'too-large'],
    // Lengths are lengths of bytes: 300 characters are 900 bytes here.
    ['€'.repeat(300), 1, 'q1', 'too-large'],
    ['x'.repeat(70_000), 1, 'q1', 'too-large'],
  ] as const) {
    const transaction = queue.begin();
    transaction.put('fine', Buffer.alloc(1), 'q1');
    transaction.take('q0');
    transaction.put(id, Buffer.alloc(bytes), name);
    t.match(await transaction.commit(), { outcome: 'rejected', reason }, reason);
    t.same(storedIds(killed(t, directory)), { q0: ['old'] });
  }
  const taken = queue.take('q0');
  t.ok(taken);
  if (taken === undefined) return;
  t.match(await queue.commit({ puts: [], consumed: [taken, taken] }), { reason: 'not-taken' });
  t.match(await queue.commit({ puts: [], consumed: [taken] }), { outcome: 'committed' });
  t.match(await queue.commit({ puts: [], consumed: [taken] }), { reason: 'not-taken' }, 'consumed once');
  queue.putBack(taken);
  t.equal(queue.take('q0'), undefined, 'a consumed message cannot be given back');
  t.same(storedIds(killed(t, directory)), {});
});

t.test('messages of the largest size and ids outside of ASCII come back as they were', async (t) => {
  const directory = await installed(t);
  const queue = await opened(t, directory);
  const max = maxMessageBytes(readSettings(directory, linux));
  const ids = ['ä'.repeat(100), '€', '🙂'.repeat(50), 'plain'];
  for (const id of ids) t.equal(await put(queue, id, max, 'q1'), 'committed');
  t.same(storedIds(killed(t, directory)), { q1: ids }, 'out of the log');
  await queue.checkpoint();
  t.same(storedIds(killed(t, directory)), { q1: ids }, 'out of the slot');
  const again = await opened(t, killed(t, directory));
  for (const id of ids) {
    const taken = again.take('q1');
    t.equal(taken?.id, id);
    t.ok(taken?.body.equals(Buffer.alloc(max, id)));
    if (taken !== undefined) await again.commit({ puts: [], consumed: [taken] });
  }
});

t.test('a strict queue gives one message at a time, a relaxed one gives several', async (t) => {
  const queue = await opened(t, await installed(t));
  await queue.createQueue({ name: 'wide', order: 'relaxed' });
  for (const name of ['q0', 'wide']) for (const id of ['1', '2']) await put(queue, id, 1, name);
  const first = queue.take('q0');
  t.equal(queue.take('q0'), undefined);
  if (first !== undefined) queue.putBack(first);
  t.equal(queue.take('q0')?.id, '1', 'the order is kept');
  t.same([queue.take('wide')?.id, queue.take('wide')?.id], ['1', '2']);
});

t.test('a batch over five segments is restored, also when the segment behind it is missing', async (t) => {
  const directory = await installed(t, { segmentBytes: 4096, segments: 8 });
  const queue = await opened(t, directory);
  const transaction = queue.begin();
  const ids = Array.from({ length: 5 }, (_, at) => `part-${at}`);
  for (const id of ids) transaction.put(id, Buffer.alloc(2000), 'q0');
  t.same(await transaction.commit(), { outcome: 'committed' });
  const copy = killed(t, directory);
  t.same(storedIds(copy), { q0: ids });
  const { log } = pathsOf(copy);
  const segments = listSegments(log, linux).map((sequence) => segmentPath(log, sequence));
  const used = segments.findLastIndex((path) => readFileSync(path).some((byte) => byte !== 0));
  for (const path of segments.slice(used + 1)) truncateSync(path, 0);
  t.same(storedIds(copy), { q0: ids }, 'it does not need the segment that was prepared');
  truncateSync(segments[used] ?? '', 0);
  t.same(storedIds(copy), {}, 'without its last segment it is not there at all');
});
