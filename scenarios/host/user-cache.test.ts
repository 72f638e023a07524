import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { makeUserCacheFolder, userCacheDirectory, userCacheFolder } from './user-cache.js';
import { homeDirectory } from './user-state.js';

const { XDG_CACHE_HOME: before } = process.env;
t.afterEach(() => {
  if (before === undefined) delete process.env.XDG_CACHE_HOME;
  else process.env.XDG_CACHE_HOME = before;
});

function newCache(t: { teardown(remove: () => void): void }): string {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-cache-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  process.env.XDG_CACHE_HOME = dir;
  return join(dir, 'plugpull');
}

t.test(
  'the directory is below XDG_CACHE_HOME, or below .cache if that is not an absolute path',
  async (t) => {
    process.env.XDG_CACHE_HOME = '/somewhere';
    t.equal(userCacheDirectory(), '/somewhere/plugpull');
    process.env.XDG_CACHE_HOME = 'somewhere';
    t.equal(userCacheDirectory(), join(homeDirectory(), '.cache/plugpull'));
  },
);

t.test('a folder is made for this user alone, whatever the umask is', async (t) => {
  const cache = newCache(t);
  t.equal(userCacheFolder('lab'), join(cache, 'lab'), 'it need not exist');
  const umask = process.umask(0);
  t.teardown(() => process.umask(umask));
  for (let round = 0; round < 2; round++) t.equal(makeUserCacheFolder('lab'), join(cache, 'lab'));
  for (const path of [cache, join(cache, 'lab')]) t.equal(statSync(path).mode & 0o777, 0o700, path);
});

t.test('a directory that others may use, a link and a file are refused with what to do', async (t) => {
  const cache = newCache(t);
  mkdirSync(join(cache, 'lab'), { recursive: true, mode: 0o700 });
  chmodSync(cache, 0o755);
  for (const use of [userCacheFolder, makeUserCacheFolder])
    t.throws(() => use('lab'), {
      code: 'bad-usage',
      message: `${cache} is not believed: its mode is 755, expected no right for other users; expected a directory of this user alone: chmod 700 ${cache}`,
    });
  chmodSync(cache, 0o700);
  rmSync(join(cache, 'lab'), { recursive: true });
  symlinkSync('/tmp', join(cache, 'lab'));
  t.throws(() => makeUserCacheFolder('lab'), {
    code: 'bad-usage',
    message: /lab is not believed: it is no directory/,
  });
  rmSync(join(cache, 'lab'));
  writeFileSync(join(cache, 'lab'), '');
  t.throws(() => makeUserCacheFolder('lab'), {
    code: 'bad-usage',
    message: /lab is not believed: it is no directory/,
  });
});

t.test('a directory that cannot be made is wrong usage', async (t) => {
  newCache(t);
  process.env.XDG_CACHE_HOME = '/proc/plugpull-none';
  t.throws(() => makeUserCacheFolder('lab'), {
    code: 'bad-usage',
    message: /XDG_CACHE_HOME names another one/,
  });
});
