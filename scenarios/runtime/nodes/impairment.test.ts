import t from 'tap';
import { netemOptions } from './impairment.js';

t.test('delay, jitter and loss become options of netem', async (t) => {
  t.same(netemOptions({}), []);
  t.same(netemOptions({ delayMs: 0, lossPercent: 0 }), []);
  t.same(netemOptions({ delayMs: 100 }), ['limit', '100000', 'delay', '100ms']);
  t.same(netemOptions({ jitterMs: 5 }), ['limit', '100000', 'delay', '0ms', '5ms']);
  t.same(netemOptions({ delayMs: 100, jitterMs: 20, lossPercent: 2.5 }), [
    ...['limit', '100000', 'delay', '100ms', '20ms', 'loss', 'random', '2.5%'],
  ]);
});
