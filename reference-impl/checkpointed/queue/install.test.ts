import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { faultyKernel } from '../fixtures/faulty-kernel.js';
import { errnoError, hostWith, opened, put, SMALL, temporaryDirectory } from '../fixtures/queue.js';
import { pathsOf, readSettings } from '../settings.js';
import { installQueue } from './install.js';

t.test('an installation that fails at any call is no queue, and the next attempt makes one', async (t) => {
  let calls = 0;
  let failing = Number.POSITIVE_INFINITY;
  const { kernel } = hostWith(
    faultyKernel(() => {
      calls += 1;
      if (calls === failing) throw errnoError('EIO');
    }),
  );
  const parent = temporaryDirectory(t);
  await installQueue(join(parent, 'whole'), SMALL, kernel);
  const total = calls;
  for (let at = 1; at <= total; at += 5) {
    const directory = join(parent, `fails-${at}`);
    calls = 0;
    failing = at;
    await t.rejects(installQueue(directory, SMALL, kernel), `call ${at}`);
    failing = Number.POSITIVE_INFINITY;
    // The very last call syncs the name of the settings, which may be there.
    if (existsSync(pathsOf(directory).settings)) continue;
    t.throws(() => readSettings(directory, kernel), { code: 'not-a-queue' });
    await installQueue(directory, SMALL, kernel);
    t.same(
      readdirSync(pathsOf(directory).log).filter((name) => name.endsWith('.new')),
      [],
    );
    const queue = await opened(t, directory);
    t.equal(await put(queue, 'm', 10, 'q0'), 'committed');
    await queue.close();
  }
});

t.test('missing parents are made, and the name of each new directory is synced', async (t) => {
  const parent = temporaryDirectory(t);
  const synced = new Set<string>();
  const { kernel } = hostWith(
    faultyKernel(({ name, path }) => {
      if (name === 'fsync') synced.add(path);
    }),
  );
  const directory = join(parent, 'a', 'b', 'queue');
  await installQueue(directory, SMALL, kernel);
  for (const one of [parent, join(parent, 'a'), join(parent, 'a', 'b'), directory])
    t.ok(synced.has(one), one);
  await t.rejects(installQueue(directory, SMALL, kernel), { code: 'queue-exists' });
});

t.test('settings that install has not written are refused', async (t) => {
  const directory = join(temporaryDirectory(t), 'queue');
  const { kernel } = hostWith();
  await installQueue(directory, SMALL, kernel);
  const path = pathsOf(directory).settings;
  const good = { version: 1, ...SMALL, key: '0123456789abcdef' };
  writeFileSync(path, JSON.stringify(good));
  t.match(readSettings(directory, kernel), { key: { high: 0x01234567, low: 0x89abcdef } });
  for (const wrong of [
    '',
    'x',
    '[]',
    'null',
    JSON.stringify({ ...good, segmentBytes: 5000 }),
    JSON.stringify({ ...good, segments: -1 }),
    JSON.stringify({ ...good, queues: '8' }),
    JSON.stringify({ ...good, key: 'x' }),
  ]) {
    writeFileSync(path, wrong);
    t.throws(() => readSettings(directory, kernel), { code: 'damaged-queue' }, wrong);
  }
  rmSync(path);
  t.throws(() => readSettings(directory, kernel), { code: 'not-a-queue' });
});
