import { execFileSync } from 'node:child_process';
import {
  constants,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Snapshot } from '../tracing/snapshot.js';
import { LossWatch } from './loss-watch.js';
import { openBelow, removeBelow, unlessGone, withFileBelow } from './open-below.js';
import { readEnd } from './search.js';
import { flipBit, regularFiles } from './walk.js';

const SECRET = 'not of the target';

/** A directory under test with the files `file` and `folder/file`, and a folder outside it with the same names. */
function made(t: { teardown(remove: () => void): void }) {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-below-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const [data, outside] = [join(dir, 'data'), join(dir, 'outside')];
  for (const place of [data, outside]) {
    mkdirSync(join(place, 'folder'), { recursive: true });
    const text = place === data ? 'of the target' : SECRET;
    for (const file of ['file', 'folder/file']) writeFileSync(join(place, file), text);
  }
  return { dir, data, outside };
}

/** What a target may put in the place of a file, a folder or the whole directory, after the kit has listed it. */
const REPLACEMENTS: [part: string, file: string, replace: (path: string, outside: string) => void][] = [
  ['file', 'file', (path, outside) => symlinkSync(join(outside, 'file'), path)],
  ['file', 'file', (path) => void execFileSync('mkfifo', [path])],
  ['file', 'file', (path) => symlinkSync('/dev/zero', path)],
  ['file', 'file', (path) => mkdirSync(path)],
  ['file', 'file', () => {}],
  ['folder', 'folder/file', (path, outside) => symlinkSync(join(outside, 'folder'), path)],
  ['folder', 'folder/file', (path) => writeFileSync(path, '')],
  ['.', 'file', (path, outside) => symlinkSync(outside, path)],
  ['.', 'folder/file', (path, outside) => symlinkSync(outside, path)],
  ['.', 'file', (path) => writeFileSync(path, '')],
  ['.', 'file', () => {}],
];

for (const [index, [part, file, replace]] of REPLACEMENTS.entries()) {
  t.test(`nothing is read or changed through what replaces ${part} (${index})`, async (t) => {
    const { dir, data, outside } = made(t);
    const snapshot = new Snapshot(data, join(dir, 'copies'));
    const watch = new LossWatch(data, () => []);
    watch.before();
    t.same(regularFiles(data), ['file', 'folder/file']);
    rmSync(join(data, part), { recursive: true });
    replace(join(data, part), outside);
    for (const flags of [constants.O_RDONLY, constants.O_RDWR])
      t.throws(() => openBelow(data, file, flags), { name: 'Error', code: 'ENOENT' });
    t.throws(() => flipBit(data, file, 0, 0), { code: 'ENOENT' });
    if (part !== 'file') t.throws(() => removeBelow(data, file), { code: 'ENOENT' });
    t.equal(readEnd(file, 100, data), undefined);
    t.same(snapshot.changedSectors(file), []);
    t.equal(snapshot.identityOf(file), undefined);
    t.equal(snapshot.sizeOf(file), 0);
    unlessGone(() => snapshot.revertSectors(file, [0]));
    snapshot.refresh();
    t.notOk(regularFiles(data).includes(file));
    t.match(
      watch.after().map((lost) => lost.file),
      part === '.' ? ['file', 'folder/file'] : [file],
    );
    for (const name of ['file', 'folder/file'])
      t.equal(readFileSync(join(outside, name), 'utf8'), SECRET, 'the file outside is as it was');
  });
}

t.test('a regular file is opened, also below a directory that is reached by a link above it', async (t) => {
  const { dir, data } = made(t);
  const link = join(dir, 'link');
  symlinkSync(realpathSync(dir), link);
  for (const directory of [data, join(link, 'data')]) {
    const text = withFileBelow(directory, 'folder/file', constants.O_RDONLY, (fd) =>
      readFileSync(fd, 'utf8'),
    );
    t.equal(text, 'of the target');
  }
  removeBelow(join(link, 'data'), 'folder/file');
  t.same(regularFiles(data), ['file']);
});
