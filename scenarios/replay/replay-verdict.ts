import type { Verdict } from '../../conformance/checkers/verdict.js';
import type { ReproductionRate } from './repeat.js';

/** Verdict of the repeated runs of a schedule. */
export interface ReplayVerdict {
  verdict: Verdict;
  why: string;
  /** What a `pass` proves and what it leaves open; null with another verdict. */
  meaning: string | null;
}

/** Judges the runs of a schedule in which `requirements` had failed. */
export function verdictOf(
  { runs, reproduced, passed, outOfTime }: ReproductionRate,
  requirements: readonly string[],
  target: string,
): ReplayVerdict {
  const what = requirements.join(' or ');
  const open = (why: string): ReplayVerdict => ({ verdict: 'not-measured', why, meaning: null });
  if (reproduced > 0)
    return {
      verdict: 'fail',
      why: `${what} failed again in ${reproduced} of ${runs} runs`,
      meaning: null,
    };
  if (runs === 0 && outOfTime) return open(`no run ended in the budget, so ${what} could not fail again`);
  if (runs === 0 || passed < runs)
    return open(`${what} did not fail again, and ${passed} of ${runs} runs passed`);
  return {
    verdict: 'pass',
    why: `${target} passed ${passed} of ${runs} runs of the recorded schedule; ${requirements.join(', ')} failed in none of them`,
    meaning: meaningOf(runs),
  };
}

/** Says how frequent a failure can still be that came in none of `runs` runs. */
function meaningOf(runs: number): string {
  const percent = Math.round((1 - 0.05 ** (1 / runs)) * 100);
  const all = runs === 1 ? '1 run would pass' : `${runs} runs in a row would pass`;
  return `if the failure still came in ${percent} % of the runs, ${all} by luck only 1 time in 20; a failure that is less frequent is still possible: --runs N makes more runs`;
}
