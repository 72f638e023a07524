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

/** The part of the output of `explore --json` that the hunt reads. */
interface ExploreOutput {
  verdict: 'pass' | 'fail' | 'not-measured';
  states: number;
  why?: string;
}

/** Upper bound of the budget of one exploration, in milliseconds. */
const MAX_BUDGET_MS = 20_000;
/** Time that an exploration may take beyond its budget before it is stopped, in milliseconds. */
const EXPLORE_OVERHEAD_MS = 120_000;
/** The requirement that a failing crash state violates, whichever requirement the bug violates in a gate. */
const CRASH_STATE_REQUIREMENT = 'PP-13';

/** Hunts a bug among the disks that a power cut could have left, in one recorded run of the copy. */
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
