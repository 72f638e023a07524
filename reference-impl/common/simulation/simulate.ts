import fc from 'fast-check';
import { QueueError } from '../platform/errors.js';
import { type Requirement, Violation } from './violation.js';

/** One run of a queue on a simulated machine. */
export interface Run<Operation> {
  /** Number of crashes so far: crash states that were restored and checked, and killed processes. */
  readonly crashes: number;
  /** Number of messages that were confirmed so far. */
  readonly confirmed: number;
  /** Executes the operations. @throws Violation when the queue violates a requirement */
  run(operations: readonly Operation[]): Promise<void>;
}

/** A queue that can be simulated. */
export interface Simulation<Operation> {
  /** The operations of one run. */
  operations: fc.Arbitrary<Operation[]>;
  /** Creates a run on a machine of its own. `log` receives one line per event. */
  createRun(log: (line: string) => void): Run<Operation>;
}

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
export interface SimulationResult<Operation = unknown> {
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
export async function simulate<Operation>(
  simulation: Simulation<Operation>,
  { budgetMs, runs, seed, path }: SimulationOptions,
): Promise<SimulationResult<Operation>> {
  const count = { runs: 0, crashes: 0, confirmed: 0 };
  const property = fc.asyncProperty(simulation.operations, async (list) => {
    const run = simulation.createRun(() => undefined);
    try {
      await run.run(list);
    } finally {
      count.runs += 1;
      count.crashes += run.crashes;
      count.confirmed += run.confirmed;
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
  const { story, requirement } = await recordStory(simulation, smallest);
  return {
    verdict: 'fail',
    ...figures,
    requirement,
    path: small.counterexamplePath ?? found.counterexamplePath,
    story,
    operations: smallest,
  };
}

/**
 * Repeats the run with this path. With a path, fast-check names one of the runs that a seed makes.
 * @throws QueueError `bad-setting` when there is no such run; fast-check itself then throws, or runs nothing.
 */
async function replayPath<Operation>(
  property: fc.IAsyncProperty<[Operation[]]>,
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
async function recordStory<Operation>(
  simulation: Simulation<Operation>,
  list: readonly Operation[],
): Promise<{ story: string[]; requirement: Requirement }> {
  const lines: string[] = [];
  const run = simulation.createRun((line) => void lines.push(line));
  try {
    await run.run(list);
  } catch (error) {
    if (!(error instanceof Violation)) throw error;
    return {
      story: [...lines.slice(-MAX_STORY_LINES), `${error.requirement}: ${error.message}`],
      requirement: error.requirement,
    };
  }
  throw new Error('a run that failed does not fail again: the simulation is not deterministic');
}
