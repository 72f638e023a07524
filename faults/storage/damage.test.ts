import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { testDirectories, testFaultContext, testRandom } from '../fixtures/fault-context.js';
import { dataRot } from './data-rot.js';
import { indexLoss } from './index-loss.js';

t.test('index-loss uses each of its kinds of damage, and changes only index files', async (t) => {
  const ways = new Set<string>();
  for (let seed = 1; seed <= 120; seed++) {
    const { dataDir, scratchDir, remove } = testDirectories();
    const index = join(dataDir, 'queue', 'a.index');
    const data = join(dataDir, 'queue', 'a.data');
    mkdirSync(join(dataDir, 'queue'));
    const old = Buffer.alloc(10_000, 'o');
    const before = Buffer.concat([old.subarray(0, 5000), Buffer.alloc(5000, 'x')]);
    writeFileSync(index, old);
    writeFileSync(data, 'data');
    const context = testFaultContext({
      dataDir,
      scratchDir,
      random: testRandom(seed),
      indexFiles: ['queue/*.index'],
    });
    await indexLoss.prepare?.(context);
    writeFileSync(index, before);
    const injection = await indexLoss.inject(context);
    const after = existsSync(index) ? readFileSync(index) : undefined;
    t.equal(injection.indexDamaged, injection.hit);
    t.equal(after?.equals(before) ?? false, !injection.hit, injection.detail);
    t.equal(readFileSync(data, 'utf8'), 'data');
    if (injection.hit) ways.add(injection.detail.replaceAll(/[\d, ]+/g, ' ').trim());
    if (injection.detail.includes('old copy')) t.ok(after?.equals(old));
    remove();
  }
  t.equal(ways.size, 8, [...ways].join(' | '));
});

t.test('index-loss without an index is a miss', async (t) => {
  const { remove, ...directories } = testDirectories();
  t.teardown(remove);
  t.equal((await indexLoss.inject(testFaultContext(directories))).hit, false);
  const named = await indexLoss.inject(testFaultContext({ ...directories, indexFiles: ['*.index'] }));
  t.equal(named.hit, false);
  t.match(named.detail, /\*\.index/);
});

t.test('data-rot flips bits only inside marked messages, and names the damaged messages', async (t) => {
  for (let seed = 1; seed <= 30; seed++) {
    const { dataDir, scratchDir, remove } = testDirectories();
    const marks = new Map(['m1', 'm2', 'm3'].map((id) => [id, Buffer.from(`<mark of ${id}>`)]));
    const before = Buffer.concat([...marks.values()].flatMap((mark) => [Buffer.alloc(300), mark]));
    writeFileSync(join(dataDir, 'a.data'), before);
    writeFileSync(join(dataDir, 'other'), before);
    const injection = await dataRot.inject(
      testFaultContext({
        dataDir,
        scratchDir,
        random: testRandom(seed),
        messageFiles: ['*.data'],
        storedMarks: () => marks,
      }),
    );
    const after = readFileSync(join(dataDir, 'a.data'));
    t.equal(injection.hit, true);
    t.ok(injection.rotted.length > 0);
    for (const [id, mark] of marks) {
      t.equal(
        !after.includes(mark),
        injection.rotted.includes(id),
        `${id} is damaged if and only if it is named`,
      );
    }
    t.equal(after.length, before.length);
    t.ok(readFileSync(join(dataDir, 'other')).equals(before), 'files that hold no messages are unchanged');
    remove();
  }
});

t.test('data-rot finds a mark that crosses the border between two chunks of a file', async (t) => {
  const { dataDir, scratchDir, remove } = testDirectories();
  t.teardown(remove);
  const mark = Buffer.from('<a mark across>');
  const before = Buffer.alloc(9 * 1024 * 1024);
  mark.copy(before, 4 * 1024 * 1024 - 5);
  mark.copy(before, 8 * 1024 * 1024);
  writeFileSync(join(dataDir, 'a.data'), before);
  const injection = await dataRot.inject(
    testFaultContext({
      dataDir,
      scratchDir,
      messageFiles: ['a.data'],
      storedMarks: () => new Map([['m', mark]]),
    }),
  );
  t.same(injection.rotted, ['m']);
  t.notOk(readFileSync(join(dataDir, 'a.data')).includes(mark), 'both copies are damaged');
  t.equal(statSync(join(dataDir, 'a.data')).size, before.length);
});

t.test('data-rot is a miss when no message is stored or no mark is found', async (t) => {
  const { remove, ...directories } = testDirectories();
  t.teardown(remove);
  const stored = () => new Map([['m', Buffer.from('mark')]]);
  t.match(await dataRot.inject(testFaultContext(directories)), { hit: false, detail: /confirmed/ });
  t.match(await dataRot.inject(testFaultContext({ ...directories, storedMarks: stored })), {
    hit: false,
    detail: /names none/,
  });
  writeFileSync(join(directories.dataDir, 'a.data'), 'compressed');
  const none = await dataRot.inject(
    testFaultContext({ ...directories, storedMarks: stored, messageFiles: ['*.data'] }),
  );
  t.match(none, { hit: false, rotted: [] });
});
