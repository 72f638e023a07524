import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { testDirectories } from '../fixtures/fault-context.js';
import { filesMatching, matchesAny, regularFiles } from './walk.js';

t.test('a star stays within a name, two stars cross folders, and other characters are literal', async (t) => {
  const cases: [string, string, boolean][] = [
    ['queue/*/queue.index', 'queue/0/queue.index', true],
    ['queue/*/queue.index', 'queue/0/1/queue.index', false],
    ['queue/*/queue.index', 'queue/0/queuexindex', false],
    ['**/*.db', 'a/b/c.db', true],
    ['**/*.db', 'c.db', true],
    ['data?', 'data1', true],
    ['data?', 'data', false],
    ['a(b)[c]+{d}', 'a(b)[c]+{d}', true],
    ['**', 'any/thing', true],
  ];
  for (const [glob, path, expected] of cases)
    t.equal(matchesAny(path, [glob]), expected, `${glob} and ${path}`);
  t.equal(matchesAny('a', []), false);
});

t.test('only regular files are listed, because opening a FIFO would block', async (t) => {
  const { dataDir, remove } = testDirectories();
  t.teardown(remove);
  mkdirSync(join(dataDir, 'sub'));
  writeFileSync(join(dataDir, 'sub', 'b'), '');
  writeFileSync(join(dataDir, 'a'), '');
  execFileSync('mkfifo', [join(dataDir, 'pipe')]);
  t.same(regularFiles(dataDir), ['a', 'sub/b']);
  t.same(filesMatching(dataDir, ['sub/*']), ['sub/b']);
  t.same(regularFiles(join(dataDir, 'not there')), []);
});
