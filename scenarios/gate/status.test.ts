import t from 'tap';
import { HistoryBuilder } from '../../conformance/fixtures/history-builder.js';
import { describeExploration, describeRounds } from './status.js';

t.test('the state of a gate has counts, a rate and the time left', async (t) => {
  const { events } = new HistoryBuilder().start('kill').submit('1').submit('2').crash({ fault: 'kill' });
  let nowMs = 0;
  const describe = describeRounds(events, 30_000, () => nowMs);
  nowMs = 1000;
  t.match(describe(), /2 confirmed \(2 a second\), 1 of 1 faults hit, 29 s left$/);
  nowMs = 2000;
  t.match(describe(), /2 confirmed \(0 a second\), .* 28 s left$/);
  nowMs = 31_000;
  t.match(describe(), /the budget is used; the last checks are running$/);
  t.equal(describeExploration(0, 12_000, 3000), 'crash states: 3 s, 9 s left');
});
