import fc from 'fast-check';
import t from 'tap';
import { PhaseClock } from './phase-clock.js';

/** A clock that only the test moves. */
class FakeClock {
  ms = 0;

  pass(ms: number): void {
    this.ms += ms;
  }
}

t.test('the time goes to the innermost phase, also when its work fails', async (t) => {
  const time = new FakeClock();
  const pass = (ms: number) => time.pass(ms);
  time.pass(100);
  const clock = new PhaseClock<'rest' | 'outer' | 'inner'>('rest', 1000, () => time.ms);
  pass(1);
  await clock.during('outer', async () => {
    pass(10);
    await clock.during('inner', () => pass(100));
    pass(20);
    await t.rejects(
      clock.during('inner', () => {
        pass(200);
        throw new Error('failed');
      }),
    );
  });
  pass(2);
  t.same(clock.report(), {
    budgetMs: 1000,
    tookMs: 333,
    phasesMs: { rest: 3, outer: 30, inner: 300 },
    overrunMs: null,
  });
});

t.test('the time after the end of the budget is reported by phase', async (t) => {
  const time = new FakeClock();
  const clock = new PhaseClock<'rest' | 'drain'>('rest', 50, () => time.ms);
  time.pass(40);
  await clock.during('drain', () => time.pass(24));
  time.pass(1);
  t.same(clock.report().overrunMs, { rest: 1, drain: 14 });
});

t.test(
  'the phases together take as long as the run, and as long as the budget and its overrun',
  async (t) => {
    const steps = fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.integer({ min: 1, max: 1000 })));
    const sums = fc.asyncProperty(steps, fc.integer({ min: 1, max: 5000 }), async (phases, budgetMs) => {
      const time = new FakeClock();
      const clock = new PhaseClock<string>('rest', budgetMs, () => time.ms);
      for (const [phase, ms] of phases) await clock.during(phase, () => time.pass(ms));
      const { tookMs, phasesMs, overrunMs } = clock.report();
      const sum = (times: Record<string, number>) => Object.values(times).reduce((all, ms) => all + ms, 0);
      return sum(phasesMs) === tookMs && sum(overrunMs ?? {}) === Math.max(0, tookMs - budgetMs);
    });
    await t.resolves(fc.assert(sums));
  },
);
