import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { verifyCertificate } from './certificate/verify.js';
import { readHistory } from './history/reader.js';
import { readRegularFile } from './read-file.js';
import { loadTarget } from './target-file/load.js';

t.test('a path that is not a regular file, or a file that is too large, is an error at once', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-test-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const path = (name: string) => join(dir, name);
  writeFileSync(path('file'), 'bytes');
  truncateSync(path('file'), 8);
  writeFileSync(path('large'), '');
  truncateSync(path('large'), 2 ** 33);
  execFileSync('mkfifo', [path('pipe')]);
  symlinkSync('/dev/zero', path('endless'));
  t.equal(readRegularFile(path('file'), 8).toString('latin1'), 'bytes\0\0\0');
  t.throws(() => readRegularFile(path('file'), 7), /8 bytes, more than 7/);
  t.throws(() => readRegularFile(dir, 8), /is a directory/);
  t.throws(() => readRegularFile(path('missing'), 8), { code: 'ENOENT' });
  for (const name of ['pipe', 'endless']) {
    t.throws(() => readRegularFile(path(name), 8), /pipe or a device/);
    t.throws(() => loadTarget(path(name)), { code: 'bad-target', message: /expected a target file: it is/ });
    t.throws(() => readHistory(path(name)), { code: 'bad-history' });
    t.throws(() => verifyCertificate(path(name), '1'), { code: 'bad-usage' });
  }
  t.throws(() => loadTarget(path('large')), { code: 'bad-target', message: /more than/ });
});
