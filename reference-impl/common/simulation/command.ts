import { type Command, InvalidArgumentError, Option } from 'commander';
import { commandOfProgram, printLine } from '../cli/output.js';
import { parseDurationMs } from '../cli/units.js';
import { QueueError } from '../platform/errors.js';
import { visible } from '../platform/visible.js';
import type { SimulationOptions, SimulationResult } from './simulate.js';

/** Flags of the `simulate` command as the user gave them. */
interface SimulateFlags {
  budget: string;
  seed?: number;
  path?: string;
  json?: boolean;
}

const MAX_BUDGET_MS = 24 * 3_600_000;
const MAX_SEED = 2 ** 31 - 1;

const EXIT_CODES: Readonly<Record<SimulationResult['verdict'], number>> = {
  pass: 0,
  fail: 1,
  'not-measured': 3,
};

/**
 * Adds the command `simulate` to the program of a queue. Its exit code is 0 for no violation, 1 for a violation, and 3 if no run
 * was over in time.
 * @param simulate simulates the queue. It loads the simulation first, because the other commands need not load it.
 */
export function addSimulateCommand(
  program: Command,
  simulate: (options: SimulationOptions) => Promise<SimulationResult>,
  setExitCode: (code: number) => void,
): void {
  program
    .command('simulate')
    .description('runs the queue on a simulated machine and crashes it; exit code 1 when a promise is broken')
    .addOption(
      new Option('--budget <duration>', 'upper bound of the search, such as 20s').default('20s', '20s'),
    )
    .option('--seed <number>', 'seed of all runs; default: a random seed, which the result names', parseSeed)
    .option('--path <path>', 'repeats the one run of --seed that an earlier result names by this path')
    .option('--json', 'prints the result as one JSON object to stdout')
    .allowExcessArguments(false)
    .action(async (flags: SimulateFlags) => {
      const result = await simulate(parseFlags(flags));
      if (flags.json) await printLine(result);
      else process.stdout.write(`${formatResult(result).split('\n').map(visible).join('\n')}\n`);
      setExitCode(EXIT_CODES[result.verdict]);
    });
}

function parseSeed(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value <= MAX_SEED) return value;
  throw new InvalidArgumentError(`expected a whole number from 0 to ${MAX_SEED}.`);
}

/** @throws QueueError `bad-setting` */
function parseFlags({ budget, seed, path }: SimulateFlags): SimulationOptions {
  const budgetMs = parseDurationMs(budget);
  if (budgetMs === undefined || budgetMs < 1 || budgetMs > MAX_BUDGET_MS) {
    throw new QueueError(
      'bad-setting',
      `--budget: found ${budget}, expected a duration such as 20s, up to 24h`,
    );
  }
  if (path !== undefined && (seed === undefined || !/^\d+(:\d+)*$/.test(path))) {
    throw new QueueError('bad-setting', `--path: expected numbers such as 12:0:3, together with --seed`);
  }
  return {
    budgetMs,
    seed: seed ?? Math.floor(Math.random() * 2 ** 31),
    ...(path === undefined ? {} : { path }),
  };
}

function formatResult(result: SimulationResult): string {
  const { verdict, requirement, crashes, crashesPerSecond, runs, confirmed, seed, path, story } = result;
  const figures = `${crashes} crashes in ${runs} runs, ${crashesPerSecond} a second; ${confirmed} messages confirmed; seed ${seed}`;
  if (verdict === 'not-measured') return `not measured: no run was over in time; ${figures}`;
  if (verdict === 'pass' && path !== undefined)
    return `not reproduced: the run ${path} breaks no promise; ${figures}`;
  if (verdict === 'pass') return `pass: ${figures}`;
  const lines = (story ?? []).map((line) => `  ${line}`).join('\n');
  return `${lines}\n\nfail: ${requirement} after ${figures}\nrun it again: ${commandOfProgram()} simulate --seed ${seed} --path ${path}`;
}
