import t from 'tap';
import { loadPlantedBugs } from './definition.js';
import { readResults } from './results.js';
import { readmeSection, resultsTable, writeReadmeSection } from './results-table.js';

t.test('the table of planted bugs in the manual matches the measured results', async (t) => {
  const table = resultsTable(readResults(), loadPlantedBugs([]));
  // After a change of the bugs, update the manual with:
  // PLUGPULL_WRITE_MANUAL=1 node dist/scenarios/planted/results-table.test.js
  if (process.env.PLUGPULL_WRITE_MANUAL) writeReadmeSection(table);
  t.equal(readmeSection(), table);
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
