import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { changedSince, fileClockMs } from './changes.js';

/** Makes a directory with some files, and returns it with the clock of the first tick after them. */
function makeTree(t: { teardown(remove: () => void): void }) {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-changes-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const data = join(dir, 'data');
  mkdirSync(join(data, 'spool'), { recursive: true });
  for (const name of ['log', 'spool/a', 'spool/b']) writeFileSync(join(data, name), 'x');
  const clock = join(dir, 'clock');
  // Wait for the next tick of the kernel's clock: a change in the same tick counts as a change after it.
  const lastMs = statSync(join(data, 'spool/b')).ctimeMs;
  let sinceMs = fileClockMs(clock);
  while (sinceMs <= lastMs) sinceMs = fileClockMs(clock);
  return { data, sinceMs };
}

t.test('nothing has changed in a directory that no process writes to, although it is read', async (t) => {
  const { data, sinceMs } = makeTree(t);
  t.equal(changedSince(data, sinceMs), undefined);
  t.equal(changedSince(data, sinceMs, 'spool/a'), undefined);
});

const changes: [string, (data: string) => void, string][] = [
  ['a file that grew', (data) => appendFileSync(join(data, 'spool/a'), 'y'), 'spool/a'],
  ['a new file', (data) => writeFileSync(join(data, 'spool/new'), ''), 'spool'],
  ['a removed file', (data) => unlinkSync(join(data, 'log')), '.'],
  ['a renamed file', (data) => renameSync(join(data, 'log'), join(data, 'spool/log')), '.'],
  [
    'a write whose time stamp was set back',
    (data) => {
      writeFileSync(join(data, 'log'), 'z');
      utimesSync(join(data, 'log'), 0, 0);
    },
    'log',
  ],
];
for (const [name, change, expected] of changes) {
  t.test(`${name} is found`, async (t) => {
    const { data, sinceMs } = makeTree(t);
    change(data);
    t.equal(changedSince(data, sinceMs), expected);
    t.equal(changedSince(data, sinceMs, expected), expected);
  });
}

t.test('a directory that cannot be read proves nothing, so it counts as changed', async (t) => {
  const { data, sinceMs } = makeTree(t);
  t.equal(changedSince(join(data, 'no-directory'), sinceMs), '.');
});
