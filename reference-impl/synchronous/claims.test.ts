import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const CLAIMS = 75;

/** The folder of the sources; this file runs in the same folder below dist. */
const folder = join(dirname(fileURLToPath(import.meta.url)), '../../../reference-impl/synchronous');

/** The rows of the table of claims in the manual: claims, what they are, files, tests. */
const rows = readFileSync(join(folder, 'README.md'), 'utf8')
  .split('\n')
  .map((line) => /^\| (\d[\d, ]*) \| (.+) \| (.+) \| (.+) \|$/.exec(line))
  .filter((row) => row !== null);

t.test('the table of claims names every claim of the patent application once', async (t) => {
  const claims = rows.flatMap((row) => (row[1] ?? '').split(', ').map(Number)).sort((a, b) => a - b);
  t.same(
    claims,
    Array.from({ length: CLAIMS }, (_, index) => index + 1),
  );
});

t.test('every file and every test that the table of claims names exists', async (t) => {
  const paths = rows.flatMap(
    (row) => `${row[3]}, ${row[4]}`.match(/[\w./-]+\.ts|[\w-]+\/(?=[,` ]|$)/g) ?? [],
  );
  t.ok(paths.length >= rows.length * 2, 'each row names a file and a test');
  for (const path of new Set(paths)) t.ok(existsSync(join(folder, path)), path);
});
