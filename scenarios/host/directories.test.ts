import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { allowPassingThrough, closedDirectory, makePassage, makeUniqueDirectory } from './directories.js';

const dir = mkdtempSync(join(tmpdir(), 'plugpull-directories-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));

const modeOf = (path: string) => statSync(path).mode & 0o777;

t.test('any user may pass through a directory with a unique name, whatever the umask is', async (t) => {
  const umask = process.umask(0o077);
  t.teardown(() => void process.umask(umask));
  const [one, two] = [makeUniqueDirectory(dir, 'run-'), makeUniqueDirectory(dir, 'run-')];
  t.not(one, two);
  t.equal(modeOf(one), 0o711);
  makePassage(join(one, 'a/b'));
  t.equal(modeOf(join(one, 'a/b')), 0o711);
});

t.test('with a strict umask, directories can be passed through and not listed', async (t) => {
  const umask = process.umask(0o077);
  t.teardown(() => void process.umask(umask));
  allowPassingThrough();
  const path = join(dir, 'strict');
  mkdirSync(path);
  t.equal(modeOf(path), 0o711);
});

t.test('the nearest directory that other users may not enter is found', async (t) => {
  const closed = join(dir, 'closed');
  const path = join(closed, 'a', 'b');
  mkdirSync(path, { recursive: true });
  for (const each of [path, join(closed, 'a')]) chmodSync(each, 0o755);
  chmodSync(closed, 0o700);
  t.equal(closedDirectory(path), closed);
  chmodSync(closed, 0o711);
  t.not(closedDirectory(path), closed);
});
