import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { searchFiles } from './search.js';

t.test('a search says which file matches, and whether it has looked at every byte', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-search-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const [first, second, missing] = ['first', 'second', 'missing'].map((name) => join(dir, name));
  writeFileSync(first ?? '', 'begin middle');
  writeFileSync(second ?? '', 'needle end');
  const search = (word: string, files: (string | undefined)[], maxBytes?: number) =>
    searchFiles(
      files.filter((file) => file !== undefined),
      (bytes) => bytes.includes(word),
      maxBytes,
    );
  t.match(search('needle', [first, second]), { found: second });
  t.same(search('nothing', [first, second]), { found: undefined, isComplete: true });
  t.match(search('middle', [first], 6), { found: first }, 'it reads the end of a large file');
  t.same(search('needle', [first, second], 15), { found: undefined, isComplete: false });
  t.same(search('nothing', [missing, first]), { found: undefined, isComplete: false });
  t.same(search('nothing', [dir]), { found: undefined, isComplete: false });
});
