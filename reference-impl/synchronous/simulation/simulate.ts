import fc from 'fast-check';
import { QueueError } from '../platform/errors.js';
import { type Requirement, Violation } from './model.js';
import { type Operation, operations } from './operations.js';
import { installMachine } from './simulated-queue.js';
import { SimulatedRun } from './simulated-run.js';

export interface SimulationOptions {
  budgetMs: number;
  /** Most runs; without it only the time counts. */
  runs?: number;
  seed: number;
  /** Of an earlier result: only that run is done again. */
  path?: string;
}

/** What a simulation has found; the run that failed is done again by `seed` and `path`. */
export interface SimulationResult {
  /** `not-measured`: the time was up before the first run came to its end. */
  verdict: 'pass' | 'fail' | 'not-measured';
  runs: number;
  crashes: number;
  crashesPerSecond: number;
  /** The same per second of processor time, which a busy machine does not change. */
  crashesPerCpuSecond: number;
  confirmed: number;
  seed: number;
  requirement?: Requirement;
  /** Of the smallest run that fails; of one that was asked for by its path and does not fail, that. */
  path?: string;
  /** What happened in the smallest run that fails, a line for each event. */
  story?: string[];
  /** That run itself, for a regression test. */
  operations?: Operation[];
}

/** Share of the time that is kept for making a failing run smaller, beyond the budget for finding one. */
const SHRINK_TIMEOUT_MS = 8000;
const MAX_STORY_LINES = 40;
const MAX_RUNS = 1_000_000_000;

/**
 * Simulates run after run until the time is up or one fails; that one is made smaller as far as the time goes.
 * @throws QueueError bad-setting when no run of the seed has that path.
 */
export async function simulate({ budgetMs, runs, seed, path }: SimulationOptions): Promise<SimulationResult> {
  const installed = await installMachine();
  const count = { runs: 0, crashes: 0, confirmed: 0 };
  const property = fc.asyncProperty(operations, async (list) => {
    const world = new SimulatedRun(installed);
    try {
      await world.run(list);
    } finally {
      count.runs += 1;
      count.crashes += world.crashes;
      count.confirmed += world.model.confirmed;
    }
  });
  const common = { seed, numRuns: path === undefined ? (runs ?? MAX_RUNS) : 1, verbose: 0 } as const;
  const startedMs = performance.now();
  const cpu = process.cpuUsage();
  const found =
    path === undefined
      ? await fc.check(property, { ...common, interruptAfterTimeLimit: budgetMs, endOnFailure: true })
      : await replayPath(property, { ...common, path, endOnFailure: true });
  const crashesPerSecond = Math.round(count.crashes / ((performance.now() - startedMs) / 1000));
  const { user, system } = process.cpuUsage(cpu);
  const crashesPerCpuSecond = Math.round(count.crashes / ((user + system) / 1e6));
  const figures = { ...count, crashesPerSecond, crashesPerCpuSecond, seed };
  if (!found.failed || found.counterexample === null || found.counterexamplePath === null) {
    return {
      verdict: count.runs === 0 ? 'not-measured' : 'pass',
      ...figures,
      ...(path === undefined ? {} : { path }),
    };
  }
  const small =
    path === undefined
      ? await fc.check(property, {
          ...common,
          path: found.counterexamplePath,
          interruptAfterTimeLimit: SHRINK_TIMEOUT_MS,
        })
      : found;
  const [smallest] = small.counterexample ?? found.counterexample;
  const { story, requirement } = await recordStory(installed, smallest);
  return {
    verdict: 'fail',
    ...figures,
    requirement,
    path: small.counterexamplePath ?? found.counterexamplePath,
    story,
    operations: smallest,
  };
}

type Property = fc.IAsyncProperty<[Operation[]]>;

/** One run by its path: where there is none, fast-check throws or runs nothing. */
async function replayPath(
  property: Property,
  parameters: fc.Parameters<[Operation[]]> & { path: string },
): Promise<fc.RunDetails<[Operation[]]>> {
  const { seed, path } = parameters;
  const none = (cause?: unknown): QueueError =>
    new QueueError('bad-setting', `--path: seed ${seed} has no run ${path} in this version`, { cause });
  let found: fc.RunDetails<[Operation[]]>;
  try {
    found = await fc.check(property, parameters);
  } catch (cause) {
    throw none(cause);
  }
  if (found.numRuns === 0) throw none();
  return found;
}

/** Runs once more and writes down what happens. */
async function recordStory(
  installed: Awaited<ReturnType<typeof installMachine>>,
  list: readonly Operation[],
): Promise<{ story: string[]; requirement: Requirement }> {
  const lines: string[] = [];
  const world = new SimulatedRun(installed, (line) => void lines.push(line));
  try {
    await world.run(list);
  } catch (error) {
    if (!(error instanceof Violation)) throw error;
    return {
      story: [...lines.slice(-MAX_STORY_LINES), `${error.requirement}: ${error.message}`],
      requirement: error.requirement,
    };
  }
  throw new Error('a run that failed does not fail again: the simulation is not deterministic');
}
