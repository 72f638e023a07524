import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import {
  filesIn,
  imagesOnDisk,
  lockImages,
  noteUse,
  readImage,
  removeImages,
  removeOldImages,
  removeUnfinished,
  sealImage,
  whyCacheRefused,
} from './image-cache.js';

const { XDG_CACHE_HOME: before } = process.env;
const dir = mkdtempSync(join(tmpdir(), 'plugpull-images-'));
const images = join(dir, 'plugpull/lab');
process.env.XDG_CACHE_HOME = dir;
t.teardown(() => {
  if (before === undefined) delete process.env.XDG_CACHE_HOME;
  else process.env.XDG_CACHE_HOME = before;
  rmSync(dir, { recursive: true, force: true });
});
t.beforeEach(() => {
  rmSync(images, { recursive: true, force: true });
  mkdirSync(images, { recursive: true, mode: 0o700 });
  chmodSync(join(dir, 'plugpull'), 0o700);
});

const keyOf = (number: number) => `${number}`.padStart(16, '0');

/** Makes an image as a build does, without a VM in it. */
function makeImage(number: number): string {
  const folder = join(images, keyOf(number));
  mkdirSync(folder, { mode: 0o700 });
  const files = filesIn(folder);
  for (const file of Object.values(files)) writeFileSync(file, 'x');
  sealImage(folder, { files, accelerator: 'tcg', kernel: '6.1' });
  return folder;
}

t.test('a sealed image is found, with what it is', async (t) => {
  const folder = makeImage(1);
  t.match(readImage(folder, keyOf(1)), {
    accelerator: 'tcg',
    kernel: '6.1',
    key: keyOf(1),
    files: filesIn(folder),
  });
});

t.test(
  'an image is not believed without its seal, with a file of another size, or if others may write to it',
  async (t) => {
    for (const spoil of [
      (folder: string) => rmSync(join(folder, 'built.json')),
      (folder: string) => appendFileSync(join(folder, 'root.img'), 'more'),
      (folder: string) => rmSync(join(folder, 'state')),
      (folder: string) => chmodSync(folder, 0o755),
      (folder: string) => chmodSync(join(folder, 'built.json'), 0o644),
      (folder: string) => writeFileSync(join(folder, 'built.json'), '{"accelerator":"kvm"}'),
    ]) {
      const folder = makeImage(1);
      t.ok(readImage(folder, keyOf(1)));
      spoil(folder);
      t.equal(readImage(folder, keyOf(1)), undefined, `${spoil}`);
      rmSync(folder, { recursive: true });
    }
  },
);

t.test('what an interrupted build has left is removed, and images stay', async (t) => {
  makeImage(1);
  mkdirSync(join(images, `plugpull-20260101-000000-00000000-${keyOf(2)}/first`), { recursive: true });
  removeUnfinished(images);
  t.same(readdirSync(images), [keyOf(1)]);
});

t.test('the images that were used last stay', async (t) => {
  for (const number of [1, 2, 3, 4]) {
    const long = new Date(2020, 1, number);
    utimesSync(join(makeImage(number), 'built.json'), long, long);
  }
  const used = readImage(join(images, keyOf(1)), keyOf(1));
  t.ok(used);
  if (used !== undefined) t.equal(noteUse(used), true);
  removeOldImages(images, keyOf(2));
  t.same(readdirSync(images).sort(), [keyOf(1), keyOf(2), keyOf(4)]);
});

t.test('an image that another process removes after it was found counts as not built', async (t) => {
  const folder = makeImage(1);
  const found = readImage(folder, keyOf(1));
  t.ok(found);
  rmSync(folder, { recursive: true });
  if (found !== undefined) t.equal(noteUse(found), false);
});

t.test('all images are removed, and nothing else in the directory', async (t) => {
  for (const number of [1, 2]) makeImage(number);
  t.match(imagesOnDisk(), { dir: images, count: 2 });
  t.equal(await removeImages(() => {}), 2);
  t.same(readdirSync(images), ['lock']);
  t.equal(await removeImages(() => {}), 0);
});

t.test('a removal waits for a build', async (t) => {
  makeImage(1);
  const build = await lockImages(() => {});
  let waits = 0;
  const removal = removeImages(() => {
    waits++;
    t.same(readdirSync(images).sort(), [keyOf(1), 'lock']);
    build.release();
  });
  t.equal(await removal, 1);
  t.equal(waits, 1);
});

t.test('a directory that others may write to is refused, with what to do', async (t) => {
  t.equal(whyCacheRefused(), undefined);
  chmodSync(images, 0o777);
  t.match(whyCacheRefused(), { why: /lab is not believed: its mode is 777/, remedy: /chmod 700/ });
});
