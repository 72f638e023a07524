import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  closeSync,
  copyFileSync,
  existsSync,
  openSync,
  readFileSync,
  renameSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { testDirectories } from '../fixtures/fault-context.js';
import { Snapshot } from './snapshot.js';

function overwrite(path: string, at: number, text: string): void {
  const file = openSync(path, 'r+');
  writeSync(file, text, at);
  closeSync(file);
}

t.test('changed sectors are found and can be reverted one by one', async (t) => {
  const { dataDir, scratchDir, remove } = testDirectories();
  t.teardown(remove);
  const path = join(dataDir, 'a');
  const before = Buffer.alloc(700_000, 1);
  writeFileSync(path, before);
  const snapshot = new Snapshot(dataDir, join(scratchDir, 'copies'));
  t.same(snapshot.changedSectors('a'), []);
  overwrite(path, 511, 'xy');
  overwrite(path, 600_000, 'z');
  t.same(snapshot.changedSectors('a'), [0, 1, Math.floor(600_000 / 512)]);
  snapshot.revertSectors('a', [1, Math.floor(600_000 / 512)]);
  t.same(snapshot.changedSectors('a'), [0]);
  t.equal(readFileSync(path)[511], 'x'.charCodeAt(0));
  snapshot.revertSectors('a', [0]);
  t.ok(readFileSync(path).equals(before));
});

t.test('a grown part of a file is reverted to zeros, and the size of the file does not change', async (t) => {
  const { dataDir, scratchDir, remove } = testDirectories();
  t.teardown(remove);
  const path = join(dataDir, 'log');
  writeFileSync(path, 'x'.repeat(600));
  const snapshot = new Snapshot(dataDir, join(scratchDir, 'copies'));
  appendFileSync(path, 'y'.repeat(700));
  t.equal(snapshot.sizeOf('log'), 600);
  t.same(snapshot.changedSectors('log'), [1, 2]);
  snapshot.revertSectors('log', [1, 2]);
  t.equal(readFileSync(path, 'latin1'), 'x'.repeat(600) + '\0'.repeat(700));
  truncateSync(path, 600);
  snapshot.revertSectors('log', [1, 2]);
  t.equal(readFileSync(path, 'latin1'), 'x'.repeat(600), 'a sector behind the end is left out');
});

t.test(
  'a file is recognised after a rename, and a new file of the same name is not mistaken for it',
  async (t) => {
    const { dataDir, scratchDir, remove } = testDirectories();
    t.teardown(remove);
    writeFileSync(join(dataDir, 'a'), 'old');
    const snapshot = new Snapshot(dataDir, join(scratchDir, 'copies'));
    renameSync(join(dataDir, 'a'), join(dataDir, 'b'));
    writeFileSync(join(dataDir, 'a'), 'new');
    t.same(snapshot.changedSectors('b'), []);
    t.equal(snapshot.sizeOf('a'), 0);
    t.same(snapshot.changedSectors('a'), [0]);
  },
);

t.test('a running program is compared as well, and the files beside it are reverted', async (t) => {
  const { dataDir, scratchDir, remove } = testDirectories();
  t.teardown(remove);
  copyFileSync('/bin/sleep', join(dataDir, 'program'));
  writeFileSync(join(dataDir, 'a'), 'before');
  const snapshot = new Snapshot(dataDir, join(scratchDir, 'copies'));
  const running = spawn(join(dataDir, 'program'), ['60']);
  t.teardown(() => running.kill('SIGKILL'));
  await once(running, 'spawn');
  t.throws(() => openSync(join(dataDir, 'program'), 'r+'), { code: 'ETXTBSY' });
  overwrite(join(dataDir, 'a'), 0, 'after!');
  t.same([snapshot.changedSectors('program'), snapshot.changedSectors('a')], [[], [0]]);
  snapshot.revertSectors('a', [0]);
  t.equal(readFileSync(join(dataDir, 'a'), 'latin1'), 'before');
  snapshot.refresh();
});

t.test('a refreshed snapshot holds the current files', async (t) => {
  const { dataDir, scratchDir, remove } = testDirectories();
  t.teardown(remove);
  const [a, b] = [join(dataDir, 'a'), join(dataDir, 'b')];
  writeFileSync(a, Buffer.alloc(2000, 1));
  const snapshot = new Snapshot(dataDir, join(scratchDir, 'copies'));
  overwrite(a, 1000, 'changed');
  writeFileSync(b, 'grown from nothing');
  snapshot.refresh();
  t.same([snapshot.changedSectors('a'), snapshot.changedSectors('b')], [[], []]);
  overwrite(a, 0, 'again');
  appendFileSync(b, '!');
  t.same([snapshot.changedSectors('a'), snapshot.changedSectors('b')], [[0], [0]]);
  snapshot.remove();
});

/** Program that gives a file two names in turn, without a pause. */
const RENAMES = `
const fs = require('node:fs');
const [one, other] = process.argv.slice(1);
for (;;) { fs.renameSync(one, other); fs.renameSync(other, one); }
`;

t.test('a file that vanishes while it is copied or compared is left out', async (t) => {
  const { dataDir, scratchDir, remove } = testDirectories();
  const [one, other] = [join(dataDir, 'one'), join(dataDir, 'other')];
  writeFileSync(one, 'moves');
  writeFileSync(join(dataDir, 'stays'), 'stays');
  const running = spawn(process.execPath, ['-e', RENAMES, one, other]);
  t.teardown(async () => {
    running.kill('SIGKILL');
    await once(running, 'exit');
    remove();
  });
  await once(running, 'spawn');
  let [isOne, isOther] = [false, false];
  for (let count = 0; count < 100 || ((!isOne || !isOther) && count < 100_000); count++) {
    isOne ||= existsSync(one);
    isOther ||= existsSync(other);
    const snapshot = new Snapshot(dataDir, join(scratchDir, 'copies'));
    for (let pass = 0; pass < 5; pass++) {
      snapshot.refresh();
      snapshot.changedSectors('one');
      snapshot.sizeOf('one');
      snapshot.isChangedBefore('one', 5);
    }
    if (snapshot.sizeOf('stays') !== 5) throw new Error('a file that stays was lost');
  }
  t.ok(isOne && isOther, 'the file was renamed meanwhile');
});
