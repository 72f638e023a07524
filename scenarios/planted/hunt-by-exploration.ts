import { KIT_PROGRAM } from './hunt-by-gate.js';
import { type HuntOptions, judge, type ModeResult, notMeasured, type PlantedCopy } from './mode.js';
import { objectFrom, runProgram } from './program.js';

/** What `explore --json` prints, as far as it is read here. */
interface Explored {
  verdict: 'pass' | 'fail' | 'not-measured';
  states: number;
  why?: string;
}

const LONGEST_MS = 20_000;
const BEYOND_BUDGET_MS = 120_000;
const USAGE = 2;
const NOT_MEASURED = 3;
/** What an explored state shows is a violation of this requirement, whatever the bug breaks elsewhere. */
const REQUIREMENT = 'PP-13';

/** Every disk that a power cut of one recorded run of the copy could have left. */
export async function huntByExploration(
  { bug, target }: PlantedCopy,
  options: HuntOptions,
): Promise<ModeResult> {
  const { seed } = options;
  const budgetMs = Math.min(options.budgetMs, LONGEST_MS);
  const startMs = performance.now();
  const args = [KIT_PROGRAM, 'explore', target, '--json', '--seed', `${seed}`, '--budget', `${budgetMs}ms`];
  const ended = await runProgram(args, { ...options, timeoutMs: budgetMs + BEYOND_BUDGET_MS });
  const result = objectFrom(ended) as Explored | undefined;
  if (result === undefined || result.verdict === 'not-measured') {
    const why = result?.why ?? ended.said.at(-1) ?? 'it ended without a result';
    const measurable = ended.code !== USAGE && ended.code !== NOT_MEASURED;
    return notMeasured(seed, why, measurable ? 'error' : 'not-measured');
  }
  const red = result.verdict === 'fail' ? [REQUIREMENT] : [];
  return judge({ ...bug, also: [...bug.also, REQUIREMENT] }, red, {
    runs: result.states,
    tookMs: performance.now() - startMs,
    seed,
    why: 'no crash state showed it',
  });
}
