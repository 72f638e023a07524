import { rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { lockWord } from '../index/entry-lock.js';
import { FIELD } from '../index/layout.js';
import { append } from '../index/lists.js';
import { smtp } from '../record/fixtures/memory-data.js';
import { createHarness, takeAll } from './fixtures/harness.js';
import { Pair } from './pair.js';

// Regression tests for past bugs that do not belong to a single file. The track record in the README
// describes each of them.

t.test('dead letters survive the loss of their index', async (t) => {
  const here = await createHarness(t, { deadLetter: { entries: 8 } });
  await here.helper();
  const queue = await here.open();
  await queue.enqueue([smtp('gone for good')]);
  const [message] = takeAll(queue);
  if (!message) throw new Error('a message was stored');
  t.equal(await queue.bury(message, { reason: 'refused', replies: [] }), 'buried');
  await queue.close();
  rmSync(join(here.directory, 'dead', 'queue.index'));
  t.match((await here.open()).stats(), { live: 0, dead: 1 });
});

t.test('tokens can carry any incarnation that a damaged index holds', async (t) => {
  for (const bits of [-1, -5, 2 ** 31 - 1]) {
    const here = await createHarness(t);
    const [directories] = here.settings.pairs;
    if (!directories) throw new Error('a queue has a pair');
    const pair = Pair.open(directories, here.settings);
    t.teardown(() => pair.close());
    pair.image.put(FIELD.helperIncarnation, bits);
    await here.helper();
    const worker = await here.worker();
    t.match(await worker.ask({ do: 'enqueue', texts: ['one'] }), { outcome: 'confirmed' }, `${bits}`);
  }
});

t.test('a long list of messages that are not due is walked only once', async (t) => {
  const count = 2500;
  const here = await createHarness(t, { dataBytes: '4MiB', entries: 4096 });
  await here.helper();
  const queue = await here.open();
  await queue.enqueue(Array.from({ length: count }, (_, n) => smtp(`${n}`)));
  let asked = 0;
  const due = () => ++asked < 0;
  t.same(queue.take({ count, bytes: 2 ** 30, due }), []);
  t.ok(asked <= count, `due was called ${asked} times for ${count} messages`);
});

t.test(
  'the entry that a killed worker reserved in the dead-letter queue is freed for the next message',
  async (t) => {
    const here = await createHarness(t, { deadLetter: { entries: 1 } });
    await here.helper();
    const queue = await here.open();
    await queue.enqueue([smtp('gone for good')]);
    const directory = join(here.directory, 'dead');
    const pair = Pair.open({ directory, indexDirectory: directory }, here.settings);
    t.teardown(() => pair.close());
    const nobody = lockWord(here.settings.workerSlots - 1, 1);
    const number = pair.image.getWide(FIELD.nextNumber);
    pair.withMutex(() =>
      append(pair.image, { offset: pair.ring.start, number, sizeBytes: 300, type: 1 }, nobody),
    );
    const [message] = takeAll(queue);
    if (!message) throw new Error('a message was stored');
    t.equal(await queue.bury(message, { reason: 'refused', replies: [] }), 'buried');
    t.match(queue.stats(), { live: 0, dead: 1 });
  },
);
