import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../host/version.js';
import { loadPlantedBugs } from './definition.js';
import { readResults } from './results.js';
import { readmeSection, resultsTable, writeReadmeSection } from './results-table.js';

const readme = readFileSync(join(packageRoot(), 'README.md'), 'utf8');
const CLAIMS = 75;

/** The rows of the table of claims: numbers, what, files, tests. */
const rows = readme
  .split('\n')
  .map((line) => /^\| (\d[\d, ]*) \| (.+) \| (.+) \| (.+) \|$/.exec(line))
  .filter((row) => row !== null);

t.test('the table of claims names every claim of the patent once', async (t) => {
  const named = rows.flatMap((row) => (row[1] ?? '').split(', ').map(Number)).sort((a, b) => a - b);
  t.same(
    named,
    Array.from({ length: CLAIMS }, (_, index) => index + 1),
  );
});

t.test('every file and test that the table of claims names is there', async (t) => {
  const paths = rows.flatMap(
    (row) => `${row[3]}, ${row[4]}`.match(/[\w./-]+\.ts|[\w-]+\/(?=[,` ]|$)/g) ?? [],
  );
  t.ok(paths.length >= rows.length * 2, 'each row names a file and a test');
  for (const path of new Set(paths)) {
    t.ok(
      existsSync(join(packageRoot(), 'reference-impl/synchronous', path)),
      `reference-impl/synchronous/${path}`,
    );
  }
});

t.test('every file that the text links to is there', async (t) => {
  const links = [...readme.matchAll(/\]\((?!https?:|#)([^)]+)\)/g)].map((match) => match[1] ?? '');
  t.ok(links.length > 5, 'there are links');
  for (const link of new Set(links)) t.ok(existsSync(join(packageRoot(), link)), link);
});

t.test('the table of planted bugs is the one that was measured', async (t) => {
  const table = resultsTable(readResults(), loadPlantedBugs([]));
  // After a change to the bugs themselves: PLUGPULL_WRITE_README=1 node dist/scenarios/planted/readme.test.js
  if (process.env.PLUGPULL_WRITE_README) writeReadmeSection(table);
  t.equal(readmeSection(), table);
});
