import fc from 'fast-check';
import { QueueError } from '../../common/platform/errors.js';
import { type Requirement, Violation } from './model.js';
import { type Operation, operations } from './operations.js';
import { installMachine } from './simulated-queue.js';
import { SimulatedRun } from './simulated-run.js';

/** Options of a simulation. */
export interface SimulationOptions {
  budgetMs: number;
  /** Maximum number of runs. Without it only the budget limits the runs. */
  runs?: number;
  seed: number;
  /** Name of one run by fast-check (`path` of an earlier result). With it only that run is repeated. */
  path?: string;
}

/** The result of a simulation. `seed` and `path` repeat the run that failed. */
export interface SimulationResult {
  /** `not-measured`: the budget ended before the first run was complete. */
  verdict: 'pass' | 'fail' | 'not-measured';
  runs: number;
  crashes: number;
  crashesPerSecond: number;
  /** Crashes per second of processor time, which does not depend on the load of the machine. */
  crashesPerCpuSecond: number;
  confirmed: number;
  seed: number;
  requirement?: Requirement;
  /** Name by fast-check of the smallest failing run, or of the requested run if that run does not fail. */
  path?: string;
  /** Log of the smallest failing run, one line per event. */
  story?: string[];
  /** Operations of the smallest failing run, for a regression test. */
  operations?: Operation[];
}

/** Time for shrinking a failing run, in milliseconds, in addition to the budget. */
const SHRINK_TIMEOUT_MS = 8000;
const MAX_STORY_LINES = 40;
const MAX_RUNS = 1_000_000_000;

/**
 * Simulates runs until the budget ends or a run fails, and shrinks the failing run within SHRINK_TIMEOUT_MS.
 * @throws QueueError `bad-setting` when the seed has no run with this path
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

/**
 * Repeats the run with this path. A path is fast-check's name for one run among those that a seed makes.
 * @throws QueueError `bad-setting` when there is no such run; fast-check itself then throws, or runs nothing.
 */
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

/** Repeats a failing run and records its log and the violated requirement. */
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
