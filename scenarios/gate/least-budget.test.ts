import t from 'tap';
import type { Target } from '../../conformance/target-file/definition.js';
import { FAULTS } from '../../faults/catalogue/catalogue.js';
import type { PreparedRuntime } from '../runtime/runtime.js';
import { leastBudgetMs } from './least-budget.js';

const runtime = {} as PreparedRuntime;
const least = (
  names: readonly string[],
  guarantee: Record<string, unknown> = {},
  explores = false,
  more: Partial<Target> = {},
) =>
  leastBudgetMs(
    { guarantee, ...more } as unknown as Target,
    FAULTS.filter(({ name }) => names.includes(name)),
    runtime,
    explores,
  );

t.test(
  'the least budget grows with the faults, with power cuts, with long leases, and with crash states',
  async (t) => {
    const one = least(['kill']);
    t.ok(one >= 5000 && one % 5000 === 0, `${one} ms`);
    t.ok(least(['kill', 'tear', 'pause']) > one);
    t.ok(least(['kill', 'power-cut']) > one);
    t.ok(least(['kill', 'power-cut', 'disk-stall']) >= least(['kill', 'power-cut']) + 10_000);
    t.equal(least(['disk-stall']), least(['power-cut']), 'either has a round of power cuts');
    t.ok(least(['kill'], { redeliverySeconds: 60 }) >= one + 50_000);
    t.equal(least(['kill'], {}, true), 60_000, 'a shorter gate explores none');
  },
);

t.test('the least budget of a cluster is larger, and grows with each fault that cuts power', async (t) => {
  const cluster = { nodes: ['a', 'b', 'c'] };
  const names = ['kill', 'pause', 'partition', 'stale-link', 'node-loss'];
  t.ok(least(names, {}, false, cluster) >= least(names) + 20_000);
  const withPower = [...names, 'power-cut'];
  const all = [...withPower, 'node-loss-power', 'cut-then-elect'];
  t.ok(least(all, {}, false, cluster) >= least(withPower, {}, false, cluster) + 20_000);
  t.ok(least(all, {}, false, cluster) <= 180_000, 'and three minutes are enough for eight of them');
});
