import t from 'tap';
import type { Target } from '../../conformance/target-file/definition.js';
import { FAULTS } from '../../faults/catalogue/catalogue.js';
import type { PreparedRuntime } from '../runtime/runtime.js';
import { leastBudgetMs } from './least-budget.js';

const runtime = {} as PreparedRuntime;
const least = (names: readonly string[], guarantee: Record<string, unknown> = {}, explores = false) =>
  leastBudgetMs(
    { guarantee } as unknown as Target,
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
    t.ok(least(['kill'], { redeliverySeconds: 60 }) >= one + 50_000);
    t.equal(least(['kill'], {}, true), 60_000, 'a shorter gate explores none');
  },
);
