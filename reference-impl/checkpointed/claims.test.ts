import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

/** The elements of claim 1, in its order. */
const ELEMENTS = ['a', 'b', 'c', 'd', 'i', 'ii', 'iii', 'iv', 'v', 'vi'];
const PROMISES = 20;

/** The folder of the sources; this file runs in the same folder below dist. */
const folder = join(dirname(fileURLToPath(import.meta.url)), '../../../reference-impl/checkpointed');
const manual = readFileSync(join(folder, 'README.md'), 'utf8');

/** The rows of the table of the claim: element, what it is, files, tests. */
const rows = manual
  .split('\n')
  .map((line) => /^\| \(([a-z]+)\) \| (.+) \| (.+) \| (.+) \|$/.exec(line))
  .filter((row) => row !== null);

t.test('the table of the claim names each element of claim 1 once, in order', async (t) => {
  t.same(
    rows.map((row) => row[1]),
    ELEMENTS,
  );
});

t.test(
  'every file and every test that the table names exists, and every test is in the named file',
  async (t) => {
    for (const [, element, , files = '', tests = ''] of rows) {
      const paths = files.match(/[\w./-]+\.ts/g) ?? [];
      const shown = [...tests.matchAll(/([\w./-]+\.test\.ts) "([^"]+)"/g)];
      t.ok(paths.length > 0 && shown.length > 0, `(${element}) has a file and a test`);
      for (const path of paths) t.ok(existsSync(join(folder, path)), path);
      for (const [, path = '', name = ''] of shown)
        t.match(
          readFileSync(join(folder, path), 'utf8'),
          new RegExp(`t\\.test\\(\\s*'${name}`),
          `${path}: ${name}`,
        );
    }
  },
);

t.test('the manual says something of each promise of the specification', async (t) => {
  const named = new Set(manual.match(/(?<=^\| PP-)\d+/gm)?.map(Number));
  t.same(
    [...named],
    Array.from({ length: PROMISES }, (_, at) => at + 1),
  );
});
