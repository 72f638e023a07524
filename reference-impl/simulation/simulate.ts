import fc from 'fast-check';
import { type Operation, operations } from './operations.js';
import { installedMachine } from './site.js';
import { type Requirement, Violation } from './violation.js';
import { World } from './world.js';

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
  verdict: 'pass' | 'fail';
  runs: number;
  crashes: number;
  crashesPerSecond: number;
  /** The same per second of processor time, which a busy machine does not change. */
  crashesPerCpuSecond: number;
  confirmed: number;
  seed: number;
  requirement?: Requirement;
  path?: string;
  /** What happened in the smallest run that fails, a line for each event. */
  story?: string[];
  /** That run itself, for a regression test. */
  operations?: Operation[];
}

/** Share of the time that is kept for making a failing run smaller, beyond the budget for finding one. */
const SHRINK_MS = 8000;
const MOST_LINES = 40;
const MOST_RUNS = 1_000_000_000;

/** Simulates run after run until the time is up or one fails; that one is made smaller as far as the time goes. */
export async function simulate({ budgetMs, runs, seed, path }: SimulationOptions): Promise<SimulationResult> {
  const installed = await installedMachine();
  const count = { runs: 0, crashes: 0, confirmed: 0 };
  const property = fc.asyncProperty(operations, async (list) => {
    const world = new World(installed);
    try {
      await world.run(list);
    } finally {
      count.runs += 1;
      count.crashes += world.crashes;
      count.confirmed += world.model.confirmed;
    }
  });
  const common = { seed, numRuns: path === undefined ? (runs ?? MOST_RUNS) : 1, verbose: 0 } as const;
  const startedMs = performance.now();
  const cpu = process.cpuUsage();
  const found = await fc.check(property, {
    ...common,
    ...(path === undefined ? { interruptAfterTimeLimit: budgetMs } : { path }),
    endOnFailure: true,
  });
  const crashesPerSecond = Math.round(count.crashes / ((performance.now() - startedMs) / 1000));
  const { user, system } = process.cpuUsage(cpu);
  const crashesPerCpuSecond = Math.round(count.crashes / ((user + system) / 1e6));
  const figures = { ...count, crashesPerSecond, crashesPerCpuSecond, seed };
  if (!found.failed || found.counterexample === null || found.counterexamplePath === null) {
    return { verdict: 'pass', ...figures };
  }
  const small =
    path === undefined
      ? await fc.check(property, {
          ...common,
          path: found.counterexamplePath,
          interruptAfterTimeLimit: SHRINK_MS,
        })
      : found;
  const [smallest] = small.counterexample ?? found.counterexample;
  const { story, requirement } = await tell(installed, smallest);
  return {
    verdict: 'fail',
    ...figures,
    requirement,
    path: small.counterexamplePath ?? found.counterexamplePath,
    story,
    operations: smallest,
  };
}

/** Runs once more and writes down what happens. */
async function tell(
  installed: Awaited<ReturnType<typeof installedMachine>>,
  list: readonly Operation[],
): Promise<{ story: string[]; requirement: Requirement }> {
  const lines: string[] = [];
  const world = new World(installed, (line) => void lines.push(line));
  try {
    await world.run(list);
  } catch (error) {
    if (!(error instanceof Violation)) throw error;
    return {
      story: [...lines.slice(-MOST_LINES), `${error.requirement}: ${error.message}`],
      requirement: error.requirement,
    };
  }
  throw new Error('a run that failed does not fail again: the simulation is not deterministic');
}
