import { createInterface } from 'node:readline';
import { commandOfProgram, printLine } from '../../common/cli/output.js';
import { parseDurationMs } from '../../common/cli/units.js';
import { QueueError } from '../../common/platform/errors.js';
import { visible } from '../../common/platform/visible.js';
import type { FileOperation } from '../../common/simulation/possible.js';
import type { SimulationResult } from '../simulation/simulate.js';

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
export async function simulateCommand({ budget, seed, path, json }: SimulateFlags): Promise<number> {
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
  // Import here: the other commands need not load the simulation.
  const { simulate } = await import('../simulation/simulate.js');
  const result = await simulate({
    budgetMs,
    seed: seed ?? Math.floor(Math.random() * 2 ** 31),
    ...(path === undefined ? {} : { path }),
  });
  if (json) await printLine(result);
  else process.stdout.write(`${formatResult(result).split('\n').map(visible).join('\n')}\n`);
  return EXIT_CODES[result.verdict];
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

interface Request {
  pages: number;
  operations: FileOperation[];
}

/**
 * Runs the `simulated-medium` command. It reads requests from stdin until stdin ends. Request and answer are
 * one line of JSON each. A request lists operations on a mapped file of `pages` pages of zeros. The answer
 * lists, for each sector of the file, the values that the sector may have after a power cut that follows the
 * operations. A test runs this command to compare the simulated medium with a real disk. In the example, the
 * msync fixes sector 7, and the later store leaves sector 0 open:
 *
 *     {"pages": 1, "operations": [{"do": "store", "page": 0, "sector": 7, "value": 1},
 *         {"do": "msync", "page": 0, "pages": 1}, {"do": "store", "page": 0, "sector": 0, "value": 2}]}
 *     {"sectors": [[0, 2], [0, 0], …, [1, 1]]}
 */
export async function simulatedMedium(): Promise<void> {
  const { possibleSectors } = await import('../../common/simulation/possible.js');
  for await (const line of createInterface({ input: process.stdin })) {
    const { pages, operations } = parse(line);
    await printLine({ sectors: possibleSectors(pages, operations) });
  }
}

function parse(line: string): Request {
  try {
    const request = JSON.parse(line) as Request;
    if (Number.isInteger(request.pages) && Array.isArray(request.operations)) return request;
  } catch {
    // The error below reports it.
  }
  throw new QueueError(
    'bad-setting',
    `stdin: expected {"pages": N, "operations": […]}, found ${line.slice(0, 60)}`,
  );
}
