import t from 'tap';
import { REGRESSIONS } from './regressions.js';
import { simulateSynchronous as simulate } from './simulate.js';
import { installMachine } from './simulated-queue.js';
import { SimulatedRun } from './simulated-run.js';

/** Number of runs per seed. They contain some hundred crashes and take one or two seconds. */
const RUNS = 40;
const NO_LIMIT_MS = 600_000;

for (const seed of [1, 2, 3]) {
  t.test(`the queue violates no requirement in the simulated runs of seed ${seed}`, async (t) => {
    const result = await simulate({ budgetMs: NO_LIMIT_MS, runs: RUNS, seed });
    t.equal(result.verdict, 'pass', (result.story ?? []).join('\n'));
    t.equal(result.runs, RUNS);
    t.ok(result.crashes > 4 * RUNS, `the runs contain ${result.crashes} crashes`);
    t.ok(result.confirmed > RUNS, `${result.confirmed} messages were confirmed`);
  });
}

t.test('the same seed gives the same runs', async (t) => {
  const of = async (seed: number) => {
    const { crashes, confirmed } = await simulate({ budgetMs: NO_LIMIT_MS, runs: 8, seed });
    return { crashes, confirmed };
  };
  t.same(await of(11), await of(11));
  t.notSame(await of(11), await of(12));
});

t.test('if no run is complete in time, the verdict is not-measured', async (t) => {
  t.match(await simulate({ budgetMs: 1, seed: 1 }), { verdict: 'not-measured', runs: 0 });
});

t.test('a run can be repeated by its path, and an unknown path is refused', async (t) => {
  const again = await simulate({ budgetMs: NO_LIMIT_MS, seed: 5, path: '0' });
  t.match(again, { verdict: 'pass', runs: 1, path: '0' });
  await t.rejects(simulate({ budgetMs: NO_LIMIT_MS, seed: 5, path: '999999:99:99' }), {
    code: 'bad-setting',
    message: /^--path: seed 5 has no run 999999:99:99/,
  });
});

for (const { name, operations } of REGRESSIONS) {
  t.test(`regression: ${name}`, async (t) => {
    const world = new SimulatedRun(await installMachine());
    await t.resolves(world.run(operations));
  });
}
