import t from 'tap';
import type { Evaluation } from '../../conformance/checkers/evaluate.js';
import { KitError } from '../../conformance/errors.js';
import type { ExploreResult } from '../explore/result/result.js';
import { inProcessRuntime, inProcessTarget } from '../fixtures/in-process-runtime.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { exploreInGate, planExploration, withCrashStates } from './crash-states.js';

const finding = (requirement: string, verdict: 'pass' | 'fail' | 'not-measured') => ({
  ...{ requirement, verdict, why: 'the rounds', violations: [], figures: {} },
});
const passed: Evaluation = {
  verdict: 'pass',
  why: '1 of 2 claimed requirements measured, all passed',
  findings: [finding('PP-1', 'pass'), finding('PP-13', 'not-measured')],
  unclaimed: [],
};
const RESULT = {
  ...{ verdict: 'pass', why: 'nothing is lost', states: 40, distinct: 30, statesPerSecond: 3, atRisk: 20 },
  ...{ broken: 0, lost: 0, tookMs: 9000, replay: 'plugpull explore', evidence: null, bundle: null },
  ...{ violations: [], warnings: [], smallest: null },
} as unknown as ExploreResult;
const summary = { ...RESULT, story: [] };

t.test('an exploration that passed is one more measured requirement', async (t) => {
  const merged = withCrashStates(passed, summary);
  t.match(merged, { verdict: 'pass', why: '2 of 2 claimed requirements measured, all passed' });
  t.match(merged.findings[1], { requirement: 'PP-13', verdict: 'pass', why: 'nothing is lost' });
});

t.test('an exploration that failed fails the gate, with its violations', async (t) => {
  const violations = [{ requirement: 'PP-13', id: '1-0-1', what: 'crash state 7: gone' }];
  const merged = withCrashStates(passed, { ...summary, verdict: 'fail', why: 'one is lost', violations });
  t.match(merged, { verdict: 'fail', why: 'PP-13: one is lost' });
  t.same(merged.findings[1]?.violations, [{ id: '1-0-1', what: 'crash state 7: gone' }]);
});

t.test('a gate without an exploration says why, and keeps its verdict', async (t) => {
  const merged = withCrashStates(passed, { unexplored: 'the budget is short' });
  t.equal(merged.verdict, 'pass');
  t.match(merged.why, /^1 of 2 /);
  t.equal(merged.findings[1]?.why, 'no crash state was explored: the budget is short');
  const unclaimed = { ...passed, findings: [finding('PP-1', 'pass')] };
  t.same(withCrashStates(unclaimed, { unexplored: 'x' }), unclaimed);
});

t.test('only a gate with time and all faults plans an exploration', async (t) => {
  const guarantee = { faults: ['kill', 'crash-states'] } as never;
  const base = {
    ...{ target: { guarantee }, runtime: { name: 'process' as const }, budgetMs: 90_000 },
    ...{ wanted: undefined, replay: () => '' },
  };
  const reasonOf = (request: Parameters<typeof planExploration>[0]) => {
    const plan = planExploration(request);
    return 'unexplored' in plan ? plan.unexplored : '';
  };
  t.match(reasonOf({ ...base, budgetMs: 59_000 }), /a budget of 60 s or more/);
  const cluster = { guarantee, nodes: ['a', 'b'] };
  t.match(
    reasonOf({ ...base, target: cluster, budgetMs: 179_000 }),
    /a budget of 180 s or more \(--budget 270s/,
  );
  t.match(reasonOf({ ...base, wanted: ['kill'] }), /--faults/);
  t.match(reasonOf({ ...base, maxRounds: 2 }), /--rounds/);
  t.match(reasonOf({ ...base, runtime: { name: 'docker' } }), /--runtime process/);
  t.match(reasonOf({ ...base, target: { guarantee: { faults: ['kill'] } as never } }), /does not claim/);
});

t.test('an exploration gets the rest of the budget in whole seconds, and its own evidence', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const gate = {
    ...{ target: inProcessTarget(workspace), runtime: inProcessRuntime(), seed: 4, out: '/evidence' },
    ...{ signal: new AbortController().signal, progress: () => {} },
  };
  const budgets: number[] = [];
  const explore = (leftMs: number, run: () => Promise<ExploreResult>) =>
    exploreInGate(
      {
        budgetMs: 12_000,
        run: (request) => {
          t.match(request, { seed: 4, out: '/evidence' });
          budgets.push(request.budgetMs);
          return run();
        },
      },
      { ...gate, leftMs },
    );
  t.match(await explore(17_900, async () => RESULT), { states: 40, story: [] });
  t.match(await explore(-3000, async () => RESULT), { states: 40 });
  t.same(budgets, [17_000, 12_000]);
  const rejected = async () => Promise.reject(new KitError('target-unavailable', 'it did not get ready'));
  t.same(await explore(17_000, rejected), { unexplored: 'it did not get ready' });
  const broken = async () => Promise.reject(new KitError('bad-target', 'no restore program'));
  await t.rejects(explore(17_000, broken), { code: 'bad-target' });
});
