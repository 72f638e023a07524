import { type HuntOptions, judge, type ModeResult, notMeasured, type PlantedCopy } from './mode.js';
import { objectFrom, runProgram } from './program.js';

/** What `simulate --json` prints, as far as it is read here. */
interface Simulated {
  verdict: 'pass' | 'fail' | 'not-measured';
  requirement?: string;
  crashes: number;
  seed: number;
  story?: unknown;
}

/** It finds what it finds within seconds: a longer search only costs time. */
const LONGEST_MS = 20_000;
const BEYOND_BUDGET_MS = 60_000;
const USAGE = 2;

/** The simulation of the queue's own code, in the copy that has the bug. */
export async function huntBySimulation(
  { bug, program }: PlantedCopy,
  options: HuntOptions,
): Promise<ModeResult> {
  const { seed } = options;
  const budgetMs = Math.min(options.budgetMs, LONGEST_MS);
  const startMs = performance.now();
  const ended = await runProgram(
    [program, 'simulate', '--budget', `${budgetMs}ms`, '--seed', `${seed}`, '--json'],
    {
      ...options,
      timeoutMs: budgetMs + BEYOND_BUDGET_MS,
    },
  );
  const result = objectFrom(ended) as Simulated | undefined;
  if (result === undefined) {
    const why = ended.said.at(-1) ?? 'it ended without a result';
    return notMeasured(seed, why, ended.code === USAGE ? 'not-measured' : 'error');
  }
  if (result.verdict === 'not-measured') return notMeasured(seed, 'no simulated run was over in time');
  const red = result.verdict === 'fail' && result.requirement !== undefined ? [result.requirement] : [];
  return judge(bug, red, {
    runs: result.crashes,
    tookMs: performance.now() - startMs,
    seed: result.seed,
    why:
      result.verdict === 'fail' ? 'it failed, and named another requirement' : 'no simulated crash showed it',
  });
}
