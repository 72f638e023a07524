import { randomInt } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { KitError } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { didYouMean } from '../../conformance/nearest.js';
import { isCheckout } from '../host/command-line.js';
import { log, printJson } from '../host/console.js';
import {
  DEFAULT_IMPLEMENTATION,
  findImplementation,
  type Implementation,
  isBuilt,
} from '../host/implementations.js';
import { newRunId, Registry } from '../host/registry.js';
import { loadPlantedBugs, type PlantedBug } from '../planted/definition.js';
import { gateOriginal, mapConcurrently } from '../planted/gate-original.js';
import { type HuntResult, hunt, overallOutcome } from '../planted/hunt.js';
import { type HuntOptions, MODE_NAMES, type ModeName } from '../planted/mode.js';
import {
  mergeHunts,
  mergeOriginalRuns,
  quickestFirst,
  type Results,
  readResults,
  writeResults,
} from '../planted/results.js';
import { BUDGETS, budgetsTable, resultsTable, writeReadmeSection } from '../planted/results-table.js';
import { table } from '../report/table.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';
import { MAX_RANDOM_SEED } from './common.js';
import type { Interrupts } from './interrupt.js';

export interface PlantedFlags {
  seed?: number;
  budget: number;
  modes: string[];
  implementation?: string;
  everyMode?: boolean;
  jobs?: number;
  original?: number;
  write?: boolean;
  json?: boolean;
}

/**
 * Default upper bound of the number of hunts at a time. A hunt mostly waits, but more hunts would take
 * processor time from each other.
 */
const MAX_JOBS = 2;

/**
 * Hunts planted bugs, or runs gates on the original of an implementation.
 * @returns exit code 0 when every bug was found that can be hunted on this machine, or no gate on the
 *   original failed; otherwise 1. 4 when the kit failed in one of the hunts or gates.
 * @throws KitError bad-usage outside a checkout.
 */
export async function plantedCommand(
  ids: string[],
  flags: PlantedFlags,
  interrupts: Interrupts,
): Promise<number> {
  if (!isCheckout())
    throw new KitError(
      'bad-usage',
      'planted: the bugs are planted in the sources of the reference implementations, which this package does not contain: expected a checkout of PlugPull',
    );
  // Hunts start further processes of the kit. Mark them, so that `clean` also ends them after this process
  // was killed.
  const registry = new Registry(newRunId());
  try {
    return await runHunts(ids, flags, interrupts, { [RUN_VARIABLE]: registry.runId });
  } finally {
    registry.close();
  }
}

async function runHunts(
  ids: string[],
  flags: PlantedFlags,
  interrupts: Interrupts,
  env: HuntOptions['env'],
): Promise<number> {
  const modes = flags.modes.map(parseMode);
  const jobs = flags.jobs ?? Math.min(MAX_JOBS, availableParallelism());
  const options = {
    seed: flags.seed ?? randomInt(MAX_RANDOM_SEED),
    budgetMs: flags.budget,
    signal: interrupts.signal,
    env,
    progress: () => {},
  };
  if (flags.original !== undefined) {
    const implementation = findImplementation(
      flags.implementation ?? DEFAULT_IMPLEMENTATION,
      '--implementation',
    );
    requireBuilt(implementation);
    const runs = await gateOriginal(implementation, flags.original, jobs, options, log);
    if (flags.write && runs.runs > 0) updateResults((results) => mergeOriginalRuns(results, runs));
    if (flags.json) printJson(runs);
    const exitCode =
      runs.errors > 0 ? EXIT_CODES.kitFailed : runs.falseAlarms > 0 ? EXIT_CODES.violation : EXIT_CODES.pass;
    return interrupts.exitCode() ?? exitCode;
  }
  const bugs = loadPlantedBugs(ids, { implementation: flags.implementation });
  const plan = { everyMode: flags.everyMode === true };
  const earlierResults = readResults().bugs;
  const huntResults = await mapConcurrently(bugs, jobs, interrupts.signal, (bug) => {
    const known = earlierResults.find(({ id }) => id === bug.id);
    return huntAndLog(bug, { ...plan, modes: quickestFirst(modes, known) }, options);
  });
  const interrupted = interrupts.exitCode();
  if (interrupted !== undefined) return interrupted;
  for (const line of table(huntResults.flatMap(resultRows))) log(line);
  if (flags.write) {
    const all = loadPlantedBugs([]);
    updateResults((results) => mergeHunts(results, huntResults, all));
  }
  if (flags.json) printJson(huntResults);
  return exitCodeOf(huntResults);
}

/** @throws KitError bad-usage when the program of the implementation is missing: its gates would all be errors. */
function requireBuilt(implementation: Implementation): void {
  if (isBuilt(implementation)) return;
  throw new KitError(
    'bad-usage',
    `--implementation ${implementation.name}: ${implementation.program} is not there: expected a compiled implementation`,
  );
}

function parseMode(name: string): ModeName {
  const mode = MODE_NAMES.find((known) => known === name);
  if (mode !== undefined) return mode;
  throw new KitError(
    'bad-usage',
    `--modes ${name}: no such mode, expected some of ${MODE_NAMES.join(', ')}${didYouMean(name, MODE_NAMES)}`,
  );
}

async function huntAndLog(
  bug: PlantedBug,
  plan: { modes: readonly ModeName[]; everyMode: boolean },
  options: HuntOptions,
): Promise<HuntResult> {
  log(`${bug.id}: ${bug.description}`);
  const huntResult = await hunt(bug, plan, { ...options, progress: (line) => log(`  ${bug.id}: ${line}`) });
  for (const cells of resultRows(huntResult)) log(cells.join('  '));
  return huntResult;
}

/** Formats one row for each mode. */
function resultRows({ id, implementation, expected, modes }: HuntResult): string[][] {
  return Object.entries(modes).map(([mode, { outcome, red, runs, seconds, seed, why }]) => [
    id,
    implementation,
    expected,
    mode,
    `found: ${outcome}`,
    `failed: ${red.join(', ') || 'none'}`,
    `${runs} runs`,
    `${seconds} s`,
    `seed ${seed}`,
    why ?? '',
  ]);
}

/** Changes the saved results, and updates the table in the manual. */
function updateResults(change: (results: Results) => Results): void {
  const results = change(readResults());
  writeResults(results);
  writeReadmeSection(resultsTable(results, loadPlantedBugs([])));
  writeReadmeSection(budgetsTable(results), BUDGETS);
}

function exitCodeOf(hunts: readonly HuntResult[]): number {
  const failed = hunts.some(({ modes }) => Object.values(modes).some(({ outcome }) => outcome === 'error'));
  if (failed) return EXIT_CODES.kitFailed;
  const outcomes = hunts.map(overallOutcome);
  return outcomes.includes('no') || outcomes.includes('other') ? EXIT_CODES.violation : EXIT_CODES.pass;
}
