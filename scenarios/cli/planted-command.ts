import { randomInt } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { KitError } from '../../conformance/errors.js';
import { newRunId, Registry } from '../host/registry.js';
import { type PlantedBug, plantedBugs } from '../planted/definition.js';
import { foundBy, type Hunt, hunt } from '../planted/hunt.js';
import { markdownOf, writeReadmePart } from '../planted/markdown.js';
import { type HuntOptions, MODE_NAMES, type ModeName } from '../planted/mode.js';
import { gateOriginal, several } from '../planted/original.js';
import {
  quickestFirst,
  type Results,
  readResults,
  withHunts,
  withOriginal,
  writeResults,
} from '../planted/results.js';
import { table } from '../report/table.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';
import type { Interrupts } from './interrupt.js';

export interface PlantedFlags {
  seed?: number;
  budget: number;
  modes: string[];
  everyMode?: boolean;
  jobs?: number;
  original?: number;
  write?: boolean;
  json?: boolean;
}

const LARGEST_RANDOM_SEED = 1_000_000;
/** A hunt mostly waits; more at a time would take the processor from each other. */
const MOST_JOBS = 2;
const VIOLATION = 1;
const KIT_FAILED = 4;

/**
 * Hunts planted bugs, or gates the original. Exit code 0 when every bug was found that can be looked for here, and
 * nothing turned red in the original; 1 when not; 4 when the kit failed in one of them.
 */
export async function plantedCommand(
  ids: string[],
  flags: PlantedFlags,
  interrupts: Interrupts,
): Promise<number> {
  // Hunts run the kit's own program: when this one is killed, `clean` ends those too.
  const registry = new Registry(newRunId());
  try {
    return await hunts(ids, flags, interrupts, { [RUN_VARIABLE]: registry.runId });
  } finally {
    registry.close();
  }
}

async function hunts(
  ids: string[],
  flags: PlantedFlags,
  interrupts: Interrupts,
  env: HuntOptions['env'],
): Promise<number> {
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  const modes = flags.modes.map(checkMode);
  const jobs = flags.jobs ?? Math.min(MOST_JOBS, availableParallelism());
  const options = {
    seed: flags.seed ?? randomInt(LARGEST_RANDOM_SEED),
    budgetMs: flags.budget,
    signal: interrupts.signal,
    env,
    progress: () => {},
  };
  if (flags.original !== undefined) {
    const runs = await gateOriginal(flags.original, jobs, options, say);
    if (flags.write && runs.runs > 0) keep((results) => withOriginal(results, runs));
    if (flags.json) process.stdout.write(`${JSON.stringify(runs)}\n`);
    return interrupts.exitCode() ?? (runs.errors > 0 ? KIT_FAILED : runs.falseAlarms > 0 ? VIOLATION : 0);
  }
  const plan = { everyMode: flags.everyMode === true };
  const before = readResults().bugs;
  const done = await several(plantedBugs(ids), jobs, interrupts.signal, (bug) => {
    const known = before.find(({ id }) => id === bug.id);
    return one(bug, { ...plan, modes: quickestFirst(modes, known) }, options, say);
  });
  const interrupted = interrupts.exitCode();
  if (interrupted !== undefined) return interrupted;
  for (const line of table(done.flatMap(rows))) say(line);
  if (flags.write) {
    const all = plantedBugs([]).map(({ id }) => id);
    keep((results) => withHunts(results, done, all));
  }
  if (flags.json) process.stdout.write(`${JSON.stringify(done)}\n`);
  return exitCodeOf(done);
}

function checkMode(name: string): ModeName {
  const mode = MODE_NAMES.find((known) => known === name);
  if (mode !== undefined) return mode;
  throw new KitError('bad-usage', `--modes ${name}: no such mode, expected some of ${MODE_NAMES.join(', ')}`);
}

async function one(
  bug: PlantedBug,
  plan: { modes: readonly ModeName[]; everyMode: boolean },
  options: HuntOptions,
  say: (line: string) => void,
): Promise<Hunt> {
  say(`${bug.id}: ${bug.sentence}`);
  const done = await hunt(bug, plan, { ...options, progress: (line) => say(`  ${bug.id}: ${line}`) });
  for (const cells of rows(done)) say(cells.join('  '));
  return done;
}

/** One row for each mode. */
function rows({ id, expected, modes }: Hunt): string[][] {
  return Object.entries(modes).map(([mode, { found, red, runs, seconds, seed, why }]) => [
    id,
    expected,
    mode,
    `found: ${found}`,
    `red: ${red.join(', ') || 'none'}`,
    `${runs} runs`,
    `${seconds} s`,
    `seed ${seed}`,
    why ?? '',
  ]);
}

/** Changes what is kept, and the table in the README with it. */
function keep(change: (results: Results) => Results): void {
  const results = change(readResults());
  writeResults(results);
  writeReadmePart(markdownOf(results, plantedBugs([])));
}

function exitCodeOf(hunts: readonly Hunt[]): number {
  const failed = hunts.some(({ modes }) => Object.values(modes).some(({ found }) => found === 'error'));
  if (failed) return KIT_FAILED;
  const found = hunts.map(foundBy);
  return found.includes('no') || found.includes('other') ? VIOLATION : 0;
}
