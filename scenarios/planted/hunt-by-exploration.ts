import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { KIT_PROGRAM } from './hunt-by-gate.js';
import {
  type HuntOptions,
  inconclusiveResult,
  judgeHunt,
  type ModeResult,
  type PlantedCopy,
} from './mode.js';
import { parseJsonOutput, runProgram } from './run-program.js';

/** What `explore --json` prints, as far as it is read here. */
interface ExploreOutput {
  verdict: 'pass' | 'fail' | 'not-measured';
  states: number;
  why?: string;
}

const MAX_BUDGET_MS = 20_000;
const EXPLORE_OVERHEAD_MS = 120_000;
/** What an explored state shows is a violation of this requirement, whatever the bug breaks elsewhere. */
const CRASH_STATE_REQUIREMENT = 'PP-13';

/** Every disk that a power cut of one recorded run of the copy could have left. */
export async function huntByExploration(
  { bug, target }: PlantedCopy,
  options: HuntOptions,
): Promise<ModeResult> {
  const { seed } = options;
  const budgetMs = Math.min(options.budgetMs, MAX_BUDGET_MS);
  const startMs = performance.now();
  const args = [KIT_PROGRAM, 'explore', target, '--json', '--seed', `${seed}`, '--budget', `${budgetMs}ms`];
  const ended = await runProgram(args, { ...options, timeoutMs: budgetMs + EXPLORE_OVERHEAD_MS });
  const result = parseJsonOutput(ended) as ExploreOutput | undefined;
  if (result === undefined || result.verdict === 'not-measured') {
    const why = result?.why ?? ended.lastStderrLines.at(-1) ?? 'it ended without a result';
    const measurable = ended.code !== EXIT_CODES.usage && ended.code !== EXIT_CODES.notMeasured;
    return inconclusiveResult(seed, why, measurable ? 'error' : 'not-measured');
  }
  const failedRequirements = result.verdict === 'fail' ? [CRASH_STATE_REQUIREMENT] : [];
  return judgeHunt(
    { ...bug, alsoAccepted: [...bug.alsoAccepted, CRASH_STATE_REQUIREMENT] },
    failedRequirements,
    {
      runs: result.states,
      tookMs: performance.now() - startMs,
      seed,
      why: 'no crash state showed it',
    },
  );
}
