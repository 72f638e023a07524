import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { linux } from '../../common/platform/linux.js';
import { LockFile } from '../../common/platform/locks.js';
import { bodySeed, checksum } from '../../common/record/checksum.js';
import { LOCK } from '../index/lock-bytes.js';
import { RING_START } from '../record/data-file.js';
import { smtp } from '../record/fixtures/memory-data.js';
import { HEADER_BYTES, HEADER_OFFSET, RECORD_OVERHEAD_BYTES } from '../record/layout.js';
import { seedAt } from '../record/seed.js';
import { listLetters, readLetter } from './dead-list.js';
import { encodeNote, escapeText, noteOf } from './dead-note.js';
import { createHarness, takeAll, textsOf, waitUntil } from './fixtures/harness.js';
import { readDataFileHeader } from './install.js';
import { openQueue, openQueueForCommand } from './open.js';
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

/** Changes the body of the first record of a stopped data file, and makes its checksum right again. */
function changeFirstBody(path: string, spoil: (body: Buffer) => void): void {
  const bytes = readFileSync(path);
  const record = bytes.subarray(RING_START);
  const sizeBytes = record.readUInt32LE(HEADER_OFFSET.dataLength) + RECORD_OVERHEAD_BYTES;
  spoil(record.subarray(HEADER_BYTES, sizeBytes - 4));
  const seed = bodySeed(
    seedAt(readDataFileHeader(path).key, RING_START),
    record.readUInt32LE(HEADER_OFFSET.headerChecksum),
  );
  record.writeUInt32LE(checksum(record, HEADER_BYTES, sizeBytes - 4, seed), sizeBytes - 4);
  writeFileSync(path, bytes);
}

/** The host, with the events that the queue logs. */
function loggingPlatform(): { platform: typeof hostPlatform; events: { event: string }[] } {
  const events: { event: string }[] = [];
  const log = (line: string) => void events.push(JSON.parse(line) as { event: string });
  return { platform: { ...hostPlatform, kernel: { ...linux, log } }, events };
}

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
  const { platform, events } = loggingPlatform();
  const next = await openQueue(here.settings, platform);
  t.teardown(() => next.close());
  t.equal(await next.bury(first(takeAll(next)), FAILURE), 'buried');
  t.match(next.stats(), { live: 0, dead: 1 });
  const [letter] = listLetters(here.settings);
  t.match(events, [{ event: 'already-dead', number: `${message.number}`, as: `${letter?.id}` }]);
});

t.test(
  'another message that got the number of a dead letter from a backup becomes a letter too',
  async (t) => {
    const here = await createHarness(t);
    const files = ['queue.data', 'queue.index'];
    for (const file of files) cpSync(join(here.pair, file), join(here.directory, file));
    const numbers: bigint[] = [];
    // The third message has the text of the second one. It is another message all the same.
    for (const text of ['one', 'two', 'two']) {
      const helper = await here.helper();
      const queue = await here.open();
      await queue.enqueue([smtp(text)]);
      const message = first(takeAll(queue));
      numbers.push(message.number);
      t.equal(await queue.bury(message, FAILURE), 'buried');
      t.match(queue.stats(), { live: 0, dead: numbers.length });
      await queue.close();
      await helper.kill('SIGTERM');
      for (const file of files) cpSync(join(here.directory, file), join(here.pair, file));
    }
    t.equal(new Set(numbers).size, 1, 'the backup gave the number again');
    const messages = listLetters(here.settings).map(({ id }) => readLetter(here.settings, id)?.body);
    t.same(textsOf(messages.map((body) => ({ body: body ?? smtp('') }))), ['one', 'two', 'two']);
  },
);

t.test('a message of another pair with the number of a dead letter becomes a letter too', async (t) => {
  const here = await createHarness(t, { pairs: [{ directory: '0' }, { directory: '1' }] });
  const helpers = [await here.helper({ pair: 0 }), await here.helper({ pair: 1 })];
  const queue = await here.open();
  for (const text of ['one', 'two']) await queue.enqueue([smtp(text)]);
  const messages = takeAll(queue);
  t.equal(messages[0]?.number, messages[1]?.number);
  t.equal(await queue.bury(first(messages), FAILURE), 'buried');
  await queue.close();
  for (const helper of helpers) await helper.kill('SIGTERM');
  const swapped = await openQueue({ ...here.settings, pairs: here.settings.pairs.toReversed() });
  t.teardown(() => swapped.close());
  const other = first(takeAll(swapped));
  t.match(other, { pair: 0, number: messages[0]?.number });
  t.equal(await swapped.bury(other, FAILURE), 'buried');
  t.match(swapped.stats(), { live: 0, dead: 2 });
});

t.test('a letter counts as the same message only when its stored bytes are equal', async (t) => {
  const here = await createHarness(t);
  await here.helper();
  const queue = await here.open();
  await queue.enqueue([smtp('gone')]);
  const message = first(takeAll(queue));
  queue.consume = () => undefined;
  t.equal(await queue.bury(message, FAILURE), 'buried');
  queue.unlock([message], 'answered');
  await queue.close();
  changeFirstBody(join(here.directory, 'dead', 'queue.data'), (body) => {
    body.write('lost', body.indexOf('gone'));
  });
  const next = await here.open();
  t.equal(await next.bury(first(takeAll(next)), FAILURE), 'buried');
  t.match(next.stats(), { live: 0, dead: 2 });
});

t.test('a letter whose record holds no message is listed as unreadable, and stops nothing', async (t) => {
  const here = await createHarness(t);
  await here.helper();
  const queue = await here.open();
  await queue.enqueue([smtp('one'), smtp('two'), smtp('three')]);
  const [one, two, three] = takeAll(queue);
  if (!one || !two || !three) throw new Error('three messages were stored');
  for (const message of [one, two]) t.equal(await queue.bury(message, FAILURE), 'buried');
  queue.unlock([three], 'answered');
  await queue.close();
  changeFirstBody(join(here.directory, 'dead', 'queue.data'), (body) => body.writeUInt32LE(2 ** 32 - 1, 0));
  const next = await here.open();
  t.equal(await next.bury(first(takeAll(next)), FAILURE), 'buried');
  const letters = listLetters(here.settings);
  t.match(letters, [
    { note: { reason: 'unreadable' }, type: 'unknown', sender: '', recipients: [] },
    { note: { reason: 'refused' } },
    { note: { reason: 'refused' } },
  ]);
  t.match(readLetter(here.settings, letters[1]?.id ?? 0)?.body.data, Buffer.from('two'));
  const bytes = readLetter(here.settings, letters[0]?.id ?? 0)?.body.data;
  t.ok(bytes?.includes('a@example.org'), 'its bytes can still be read');
  t.equal(bytes?.length, letters[0]?.messageBytes);
  t.same(textsOf(next.takeUnnoticed(10)), ['two', 'three']);
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

t.test('a helper may start at any moment of a command that syncs without one', async (t) => {
  const here = await createHarness(t);
  const lockPath = join(here.pair, 'queue.lock');
  const starting = new LockFile(lockPath);
  t.teardown(() => starting.close());
  const isFree: boolean[] = [];
  const kernel = { ...linux };
  kernel.msync = (...args) => {
    isFree.push(starting.tryLock(LOCK.helper));
    if (isFree.at(-1) === true) starting.unlock(LOCK.helper);
    return linux.msync(...args);
  };
  const command = openQueueForCommand(here.settings, { ...hostPlatform, kernel });
  t.teardown(() => command.close());
  isFree.splice(0);
  t.match(await command.enqueue([smtp('one')]), { outcome: 'confirmed' });
  t.match(isFree, [true], 'a helper that starts during the sync is not refused');
  // A sync of a command has begun: the helper waits for its end.
  t.ok(starting.tryLock(LOCK.dataSync));
  const helper = here.helper();
  await waitUntil(() => starting.isHeldElsewhere(LOCK.helper));
  starting.unlock(LOCK.dataSync);
  t.match((await helper).firstLine, { ready: true });
  t.match(await command.enqueue([smtp('two')]), { outcome: 'confirmed' }, 'the helper syncs from now on');
  t.equal(isFree.length, 1);
  await (await helper).kill();
  t.match(await command.enqueue([smtp('three')]), { outcome: 'confirmed' }, 'and the command after it');
  t.equal(command.stats().live, 3);
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
