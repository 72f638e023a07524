import { QueueError } from '../platform/errors.js';
import { visible } from '../platform/visible.js';
import type { SimulationOptions, SimulationResult } from './simulate.js';

/** What the program of a queue gives to its `simulate` command. */
export interface SimulateProgram {
  /** How the user starts this program. */
  command: string;
  /** Parses a duration such as 20s into milliseconds. Returns undefined if the text is not a duration. */
  parseDurationMs(text: string): number | undefined;
  /** Prints a value to stdout as one line of JSON. */
  printLine(value: unknown): Promise<void>;
  /** Simulates the queue. It loads the simulation first, because the other commands need not load it. */
  simulate(options: SimulationOptions): Promise<SimulationResult>;
}

/** Flags of the `simulate` command as the user gave them. */
export interface SimulateFlags {
  budget: string;
  seed?: number;
  path?: string;
  json?: boolean;
}

const MAX_BUDGET_MS = 24 * 3_600_000;

const EXIT_CODES: Readonly<Record<SimulationResult['verdict'], number>> = {
  pass: 0,
  fail: 1,
  'not-measured': 3,
};

/**
 * Runs the `simulate` command: searches for a run in which the queue violates a requirement.
 * @returns the exit code: 0 no violation, 1 a violation, 3 no run finished in time
 */
export async function simulateCommand(
  { budget, seed, path, json }: SimulateFlags,
  program: SimulateProgram,
): Promise<number> {
  const budgetMs = program.parseDurationMs(budget);
  if (budgetMs === undefined || budgetMs < 1 || budgetMs > MAX_BUDGET_MS) {
    throw new QueueError(
      'bad-setting',
      `--budget: found ${budget}, expected a duration such as 20s, up to 24h`,
    );
  }
  if (path !== undefined && (seed === undefined || !/^\d+(:\d+)*$/.test(path))) {
    throw new QueueError('bad-setting', `--path: expected numbers such as 12:0:3, together with --seed`);
  }
  const result = await program.simulate({
    budgetMs,
    seed: seed ?? Math.floor(Math.random() * 2 ** 31),
    ...(path === undefined ? {} : { path }),
  });
  if (json) await program.printLine(result);
  else process.stdout.write(`${formatResult(result, program.command).split('\n').map(visible).join('\n')}\n`);
  return EXIT_CODES[result.verdict];
}

function formatResult(result: SimulationResult, command: string): string {
  const { verdict, requirement, crashes, crashesPerSecond, runs, confirmed, seed, path, story } = result;
  const figures = `${crashes} crashes in ${runs} runs, ${crashesPerSecond} a second; ${confirmed} messages confirmed; seed ${seed}`;
  if (verdict === 'not-measured') return `not measured: no run was over in time; ${figures}`;
  if (verdict === 'pass' && path !== undefined)
    return `not reproduced: the run ${path} breaks no promise; ${figures}`;
  if (verdict === 'pass') return `pass: ${figures}`;
  const lines = (story ?? []).map((line) => `  ${line}`).join('\n');
  return `${lines}\n\nfail: ${requirement} after ${figures}\nrun it again: ${command} simulate --seed ${seed} --path ${path}`;
}
