import t from 'tap';
import { HistoryBuilder } from '../../conformance/fixtures/history-builder.js';
import { FAULTS } from '../../faults/catalogue/catalogue.js';
import { unmetFaults } from './unmet-faults.js';

const faults = FAULTS.filter(({ name }) => ['kill', 'tear', 'io-error'].includes(name));
const finding = (requirement: string, verdict: 'pass' | 'not-measured') => ({
  ...{ requirement, verdict, why: '', violations: [], figures: {} },
});

t.test('faults that have not hit are unmet', async (t) => {
  t.equal(faults.length, 3);
  const { events } = new HistoryBuilder().start('kill').submit('1').crash({ fault: 'kill' });
  t.same(
    unmetFaults(faults, events, { findings: [] }).map(({ name }) => name),
    ['tear', 'io-error'],
  );
});

t.test('a fault whose hits did not measure its requirement is unmet', async (t) => {
  const history = new HistoryBuilder().start('kill').submit('1');
  for (const { name } of faults) history.crash({ fault: name });
  const open = { findings: [finding('PP-14', 'not-measured'), finding('PP-16', 'pass')] };
  t.same(
    unmetFaults(faults, history.events, open).map(({ name }) => name),
    ['io-error'],
  );
  t.same(unmetFaults(faults, history.events, { findings: [] }), []);
});
