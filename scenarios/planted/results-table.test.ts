import t from 'tap';
import { loadPlantedBugs } from './definition.js';
import { readResults } from './results.js';
import { BUDGETS, budgetsTable, readmeSection, resultsTable, writeReadmeSection } from './results-table.js';

t.test('the table of planted bugs in the manual matches the measured results', async (t) => {
  const table = resultsTable(readResults(), loadPlantedBugs([]));
  // After a change of the bugs, update the manual with:
  // PLUGPULL_WRITE_MANUAL=1 node dist/scenarios/planted/results-table.test.js
  if (process.env.PLUGPULL_WRITE_MANUAL) writeReadmeSection(table);
  t.equal(readmeSection(), table);
});

t.test('the table of budgets in the manual matches the measured results', async (t) => {
  const table = budgetsTable(readResults());
  if (process.env.PLUGPULL_WRITE_MANUAL) writeReadmeSection(table, BUDGETS);
  t.equal(readmeSection(undefined, BUDGETS), table);
});

t.test('a bug counts as found in its own budget and in larger ones', async (t) => {
  const found = (seconds: number) => ({
    outcome: 'yes' as const,
    requirement: 'PP-1' as const,
    red: [],
    runs: 1,
    seconds,
    seed: 1,
    why: null,
  });
  const bug = { implementation: 'synchronous', found: true, requirement: 'PP-1', runs: 1, seconds: 1 };
  const bugs = [
    { ...bug, id: 'a', modes: { gate: found(30.1), explore: found(19) } },
    { ...bug, id: 'b', modes: { gate: found(20) } },
    { ...bug, id: 'no gate hunts it', modes: { simulate: found(1) } },
  ];
  const lines = budgetsTable({ ...readResults(), bugs }).split('\n');
  t.equal(lines[0], 'Bugs in `synchronous`:');
  t.equal(lines[4], '| 20 s | 1 of 2 (50 %) | 2 of 2 (100 %) |');
  t.equal(lines[6], '| 45 s | 2 of 2 (100 %) | 2 of 2 (100 %) |');
});

t.test('a manual without the markers is refused, because the table would overwrite other text', async (t) => {
  for (const manual of [
    '',
    'a table and no markers',
    '<!-- end of planted --> <!-- planted: made by npm run planted -->',
  ]) {
    t.throws(() => readmeSection(manual), { code: 'kit-failed' });
  }
});
