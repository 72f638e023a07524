import { EXIT_CODES } from '../../conformance/exit-codes.js';
import {
  type HuntOptions,
  inconclusiveResult,
  judgeHunt,
  type ModeResult,
  type PlantedCopy,
} from './mode.js';
import { parseJsonOutput, runProgram } from './run-program.js';

/** The part of the output of `simulate --json` that the hunt reads. */
interface SimulateOutput {
  verdict: 'pass' | 'fail' | 'not-measured';
  requirement?: string;
  crashes: number;
  seed: number;
  story?: unknown;
}

/**
 * Upper bound of the budget of one simulation, in milliseconds. A simulation finds a bug within seconds or
 * not at all: a longer search only costs time.
 */
const MAX_BUDGET_MS = 20_000;
/** Time that a simulation may take beyond its budget before it is stopped, in milliseconds. */
const SIMULATE_OVERHEAD_MS = 60_000;

/** Hunts a bug with the simulation that the planted copy's own program contains. */
export async function huntBySimulation(
  { bug, program }: PlantedCopy,
  options: HuntOptions,
): Promise<ModeResult> {
  const { seed } = options;
  const budgetMs = Math.min(options.budgetMs, MAX_BUDGET_MS);
  const startMs = performance.now();
  const ended = await runProgram(
    [program, 'simulate', '--budget', `${budgetMs}ms`, '--seed', `${seed}`, '--json'],
    {
      ...options,
      timeoutMs: budgetMs + SIMULATE_OVERHEAD_MS,
    },
  );
  const result = parseJsonOutput(ended) as SimulateOutput | undefined;
  if (result === undefined) {
    const why = ended.lastStderrLines.at(-1) ?? 'it ended without a result';
    // The exit code for wrong usage is the same in the queue's program as in the kit.
    return inconclusiveResult(seed, why, ended.code === EXIT_CODES.usage ? 'not-measured' : 'error');
  }
  if (result.verdict === 'not-measured') return inconclusiveResult(seed, 'no simulated run was over in time');
  const failedRequirements =
    result.verdict === 'fail' && result.requirement !== undefined ? [result.requirement] : [];
  return judgeHunt(bug, failedRequirements, {
    runs: result.crashes,
    tookMs: performance.now() - startMs,
    seed: result.seed,
    why:
      result.verdict === 'fail' ? 'it failed, and named another requirement' : 'no simulated crash showed it',
  });
}
