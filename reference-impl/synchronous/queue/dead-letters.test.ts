import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { linux } from '../platform/linux.js';
import { LOCK, LockFile } from '../platform/locks.js';
import { smtp } from '../record/fixtures/memory-data.js';
import { listLetters, readLetter } from './dead-list.js';
import { encodeNote, escapeText, noteOf } from './dead-note.js';
import { createHarness, takeAll, textsOf } from './fixtures/harness.js';
import { openQueueForCommand } from './open.js';
import { hostPlatform } from './platform.js';
import { rebuildQueue } from './rebuild.js';
import type { LockedMessage } from './types.js';
import { verifyQueue } from './verify.js';

const FAILURE = { reason: 'refused', replies: ['550 5.1.1 no such user\x1b[2J\u009b'] } as const;

const first = (messages: LockedMessage[]): LockedMessage => {
  const [message] = messages;
  if (!message) throw new Error('a message was stored');
  return message;
};

t.test('a dead letter keeps reason, reply, attempts, times and envelope', async (t) => {
  const here = await createHarness(t);
  await here.helper();
  const queue = await here.open();
  const startedMs = Date.now();
  await queue.enqueue([smtp('gone', { destination: 'h:25' })]);
  queue.unlock(takeAll(queue), 'failed');
  const message = first(takeAll(queue));
  t.match(message, { retryCount: 1, answeredCount: 0 });
  t.equal(await queue.bury(message, FAILURE), 'buried');
  const [letter] = listLetters(here.settings);
  t.match(letter, {
    note: { reason: 'refused', replies: ['550 5.1.1 no such user\\x1b[2J\\x9b'], attempts: 2 },
    sender: 'a@example.org',
    recipients: ['b@example.net'],
    destination: 'h:25',
    notice: 'due',
  });
  const { queuedAtMs, firstAttemptMs, lastAttemptMs } = letter?.note ?? noteOf(smtp(''));
  t.ok(startedMs <= queuedAtMs && queuedAtMs <= firstAttemptMs && firstAttemptMs <= lastAttemptMs);
  const found = readLetter(here.settings, letter?.id ?? 0);
  t.match(found?.body, { data: Buffer.from('gone'), note: undefined });
});

t.test('a message that is a dead letter already is not stored a second time', async (t) => {
  const here = await createHarness(t);
  await here.helper();
  const queue = await here.open();
  await queue.enqueue([smtp('gone')]);
  const message = first(takeAll(queue));
  // A worker that dies between the two steps of a burial leaves the letter and the message.
  const consume = queue.consume.bind(queue);
  queue.consume = () => undefined;
  t.equal(await queue.bury(message, FAILURE), 'buried');
  queue.consume = consume;
  queue.unlock([message], 'answered');
  t.match(queue.stats(), { live: 1, dead: 1 });
  await queue.close();
  const next = await here.open();
  t.equal(await next.bury(first(takeAll(next)), FAILURE), 'buried');
  t.match(next.stats(), { live: 0, dead: 1 });
});

t.test('a dead letter that the operator deleted does not count as stored', async (t) => {
  const here = await createHarness(t);
  await here.helper();
  const queue = await here.open();
  await queue.enqueue([smtp('gone')]);
  const message = first(takeAll(queue));
  const consume = queue.consume.bind(queue);
  queue.consume = () => undefined;
  await queue.bury(message, FAILURE);
  t.equal(await queue.bury(message, FAILURE), 'buried', 'the queue knows the letter now');
  t.equal(queue.stats().dead, 1);
  queue.consume = consume;
  queue.removeDead(queue.takeDead(() => true, 10));
  t.equal(queue.stats().dead, 0);
  t.equal(await queue.bury(message, FAILURE), 'buried');
  t.match(queue.stats(), { live: 0, dead: 1 });
});

t.test('the state of a notice survives a restore, and is unknown when the index is lost', async (t) => {
  const here = await createHarness(t);
  await here.helper();
  const queue = await here.open();
  await queue.enqueue(['sent', 'due'].map((text) => smtp(text)));
  for (const message of takeAll(queue)) await queue.bury(message, FAILURE);
  queue.noticed(queue.takeUnnoticed(1), 'sent');
  const states = () => listLetters(here.settings).map(({ notice }) => notice);
  t.same(states(), ['sent', 'due']);
  await queue.close();
  const next = await here.open();
  t.same(states(), ['sent', 'due']);
  t.same(textsOf(next.takeUnnoticed(10)), ['due']);
  await next.close();
  rmSync(join(here.directory, 'dead', 'queue.index'));
  const last = await here.open();
  t.same(states(), ['unknown', 'unknown']);
  t.same(last.takeUnnoticed(10), []);
});

t.test('letters move back to the main queue, also without a helper', async (t) => {
  const here = await createHarness(t);
  const helper = await here.helper();
  const queue = await here.open();
  await queue.enqueue([smtp('one'), smtp('two')]);
  for (const message of takeAll(queue)) await queue.bury(message, FAILURE);
  await queue.close();
  await helper.kill();
  const command = openQueueForCommand(here.settings);
  t.teardown(() => command.close());
  for (const letter of command.takeDead(() => true, 10)) {
    t.match(await command.enqueue([smtp(letter.body.data.toString())], 'inbound'), { outcome: 'confirmed' });
    command.removeDead([letter]);
  }
  t.match(command.stats(), { live: 2, dead: 0 });
  t.equal((await verifyQueue(here.settings)).ok, true);
});

t.test('a dead-letter queue without room for the note keeps the message without it', async (t) => {
  // Files of version 0.1.0 are like this, and so are its letters.
  const here = await createHarness(t, { deadLetter: { dataBytes: '516KiB' } });
  await here.helper();
  const queue = await here.open();
  const large = smtp('x'.repeat(256 * 1024 - 200));
  t.match(await queue.enqueue([large]), { outcome: 'confirmed' });
  t.equal(await queue.bury(first(takeAll(queue)), FAILURE), 'buried');
  t.match(listLetters(here.settings), [
    { note: { reason: 'unknown', attempts: 0 }, messageBytes: large.data.length },
  ]);
  t.match(queue.takeUnnoticed(10), [{ body: { data: large.data } }]);
});

t.test('new mail leaves a reserve that internal mail may use', async (t) => {
  const here = await createHarness(t, { entries: 32 });
  await here.helper();
  const queue = await here.open();
  for (let n = 0; n < 30; n += 1)
    t.match(await queue.enqueue([smtp(`${n}`)], 'inbound'), { outcome: 'confirmed' });
  t.match(await queue.enqueue([smtp('x')], 'inbound'), { outcome: 'rejected', reason: 'no-entry' });
  t.match(await queue.enqueue([smtp('notice')]), { outcome: 'confirmed' });
});

t.test('rebuild covers the dead letters and renames no index before it holds the opening lock', async (t) => {
  const here = await createHarness(t);
  await here.helper().then(async (helper) => {
    const queue = await here.open();
    await queue.enqueue([smtp('one'), smtp('two')]);
    const message = first(takeAll(queue));
    await queue.bury(message, FAILURE);
    await queue.close();
    await helper.kill();
  });
  const unlocked: string[] = [];
  const kernel = Object.create(linux) as typeof linux;
  kernel.rename = (from, to) => {
    const lock = join(from, '..', 'queue.lock');
    const locks = new LockFile(lock);
    if (to.endsWith('.old') && !locks.isHeldElsewhere(LOCK.opening)) unlocked.push(from);
    locks.close();
    linux.rename(from, to);
  };
  const report = await rebuildQueue(here.settings, true, { ...hostPlatform, kernel });
  t.same(unlocked, []);
  t.match(
    report.pairs.map(({ directory, restored }) => [directory, restored]),
    [
      [here.pair, 2],
      [join(here.directory, 'dead'), 1],
    ],
  );
  t.equal(listLetters(here.settings)[0]?.notice, 'unknown');
  const queue = await here.open();
  await t.rejects(rebuildQueue(here.settings), { code: 'queue-in-use' });
  await queue.close();
  cpSync(join(here.directory, 'dead', 'queue.index.old'), join(here.directory, 'dead', 'queue.index'));
  await rebuildQueue(here.settings);
  t.equal((await verifyQueue(here.settings)).ok, true);
});

t.test('a note is bounded and printable, and bad notes are unknown', async (t) => {
  const note = {
    reason: 'refused',
    attempts: 1,
    queuedAtMs: 1,
    firstAttemptMs: 2,
    lastAttemptMs: 3,
    origin: '0:1',
  } as const;
  const replies = Array.from({ length: 50 }, (_, n) => `${n}\u{1f4a9}${'x'.repeat(1000)}`);
  const text = encodeNote({ ...note, replies });
  t.ok(text.length < 4096);
  t.match(noteOf({ ...smtp(''), note: text }), { ...note, replies: [/^0\\u\{1f4a9\}x+\.\.\.$/] });
  for (const bad of ['', '[]', '7', '{', '{"reason":"nice","replies":3}'])
    t.match(noteOf({ ...smtp(''), note: bad }), { reason: 'unknown', replies: [], attempts: 0 });
  t.equal(escapeText('a\r\n\\\x7f'), 'a\\x0d\\x0a\\x5c\\x7f');
});
