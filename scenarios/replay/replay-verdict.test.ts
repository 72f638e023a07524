import t from 'tap';
import { verdictOf } from './replay-verdict.js';

const PASSED = { runs: 5, reproduced: 0, passed: 5, outOfTime: false };

t.test('after passing runs a replay says what passed, in how many runs, and what that means', async (t) => {
  const { verdict, why, meaning } = verdictOf(PASSED, ['PP-1', 'PP-5'], 'my-queue');
  t.equal(verdict, 'pass');
  t.equal(why, 'my-queue passed 5 of 5 runs of the recorded schedule; PP-1, PP-5 failed in none of them');
  t.match(
    meaning,
    /^if the failure still came in 45 % of the runs, 5 runs in a row would pass by luck only 1/,
  );
  t.match(meaning, /less frequent is still possible: --runs N makes more runs$/);
  const once = verdictOf({ ...PASSED, runs: 1, passed: 1 }, ['PP-1'], 'my-queue');
  t.match(once.meaning, /in 95 % of the runs, 1 run would pass by luck only 1 time in 20/);
});

t.test('the rate of a passing replay is the one at which its runs pass 1 time in 20', async (t) => {
  for (const runs of [1, 5, 20, 100]) {
    const { meaning } = verdictOf({ ...PASSED, runs, passed: runs }, ['PP-1'], 'my-queue');
    const percent = Number(/(\d+) %/.exec(meaning ?? '')?.[1]);
    t.ok(Math.abs((1 - percent / 100) ** runs - 0.05) < 0.02, `${runs} runs, ${percent} %`);
  }
});

t.test('runs that proved nothing are no pass, and one that failed again is a failure', async (t) => {
  t.match(verdictOf({ ...PASSED, passed: 4 }, ['PP-1'], 'q'), {
    verdict: 'not-measured',
    why: 'PP-1 did not fail again, and 4 of 5 runs passed',
    meaning: null,
  });
  t.match(verdictOf({ ...PASSED, runs: 0, passed: 0, outOfTime: true }, ['PP-1'], 'q'), {
    verdict: 'not-measured',
    why: /no run ended in the budget/,
  });
  t.match(verdictOf({ ...PASSED, passed: 4, reproduced: 1 }, ['PP-1'], 'q'), {
    verdict: 'fail',
    why: 'PP-1 failed again in 1 of 5 runs',
    meaning: null,
  });
});
