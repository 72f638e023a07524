import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import { commandLine } from '../host/command-line.js';
import { packageRoot } from '../host/version.js';
import { COMMON_FOLDER, PLANTED_DIR, type PlantedBug } from './definition.js';
import { type HuntResult, overallOutcome, quickestDetection } from './hunt.js';
import type { ModeName, ModeResult } from './mode.js';

/** The saved results of one planted bug: those of the quickest mode that found it, and those of each mode. */
export interface BugResult {
  id: string;
  /** Name of the implementation that has the bug. */
  implementation: string;
  found: boolean;
  requirement: string | null;
  runs: number;
  seconds: number;
  modes: Partial<Record<ModeName, ModeResult>>;
}

/** Counts of gates on implementations without a planted bug. */
export interface OriginalTotals {
  runs: number;
  falseAlarms: number;
  /** Number of runs with the verdict not-measured. */
  notMeasured: number;
  /** Number of runs in which the kit failed. */
  errors: number;
  seconds: number;
}

/** Totals of gates on one original, all with the same sources and the same budget. */
export interface OriginalRuns extends OriginalTotals {
  /** Name of the implementation. */
  implementation: string;
  /** Digest of its sources. */
  referenceDigest: string;
  budgetSeconds: number;
}

/** Version of the layout of results.json; a file of another version is refused. */
export const RESULTS_FORMAT = 3;

/** The contents of conformance/planted/results.json. */
export interface Results {
  format: typeof RESULTS_FORMAT;
  bugs: BugResult[];
  /** Gates on the originals, one entry for each implementation, version of its sources and budget. */
  original: OriginalRuns[];
}

/** Path of the saved results. */
export const RESULTS_FILE = join(PLANTED_DIR, 'results.json');

/**
 * Reads the saved results. Returns empty results when the file does not exist.
 * @throws KitError bad-target when the file is not JSON or has another format.
 */
export function readResults(file = RESULTS_FILE): Results {
  if (!existsSync(file)) return { format: RESULTS_FORMAT, bugs: [], original: [] };
  const remedy = `remove it and run: ${commandLine('planted', '--write')}`;
  let results: Partial<Results> | null;
  try {
    results = JSON.parse(readFileSync(file, 'utf8')) as Partial<Results> | null;
  } catch (error) {
    throw new KitError('bad-target', `${file}: expected JSON: ${messageOf(error)}; ${remedy}`, {
      cause: error,
    });
  }
  if (results?.format === RESULTS_FORMAT) return results as Results;
  throw new KitError(
    'bad-target',
    `${file}: format: expected ${RESULTS_FORMAT}, found ${results?.format ?? 'none'}; ${remedy}`,
  );
}

/** Saves the results, as indented JSON. */
export function writeResults(results: Results, file = RESULTS_FILE): void {
  writeFileSync(file, `${JSON.stringify(results, undefined, 2)}\n`);
}

/**
 * Replaces saved results by those of new hunts, mode by mode. Removes the results of bugs that do not exist
 * any more.
 * @param planted all planted bugs, in the order of the result.
 */
export function mergeHunts(
  results: Results,
  hunts: readonly HuntResult[],
  planted: readonly Pick<PlantedBug, 'id' | 'implementation'>[],
): Results {
  const bugs = planted.flatMap(({ id, implementation }) => {
    const earlier = results.bugs.find((bug) => bug.id === id && bug.implementation === implementation);
    const fresh = hunts.find((hunt) => hunt.id === id);
    const modes = { ...earlier?.modes, ...fresh?.modes };
    return Object.keys(modes).length === 0 ? [] : [bugResult(id, implementation, modes)];
  });
  return { ...results, bugs };
}

function bugResult(id: string, implementation: string, modes: HuntResult['modes']): BugResult {
  const best = quickestDetection({ modes });
  return {
    id,
    implementation,
    found: overallOutcome({ modes }) === 'yes',
    requirement: best?.requirement ?? null,
    runs: best?.runs ?? 0,
    seconds: best?.seconds ?? 0,
    modes,
  };
}

/**
 * Sorts the modes: first those that found the bug before, the quickest first; then the others in their
 * order.
 */
export function quickestFirst(modes: readonly ModeName[], known: BugResult | undefined): ModeName[] {
  const secondsOf = (mode: ModeName) => {
    const earlier = known?.modes[mode];
    return earlier?.outcome === 'yes' ? earlier.seconds : Number.POSITIVE_INFINITY;
  };
  const foundBefore = (mode: ModeName) => Number.isFinite(secondsOf(mode));
  const found = modes.filter(foundBefore).sort((a, b) => secondsOf(a) - secondsOf(b));
  return [...found, ...modes.filter((mode) => !foundBefore(mode))];
}

/** Adds gates on the original to the saved ones. Gates with the same sources and budget become one entry. */
export function mergeOriginalRuns(results: Results, more: OriginalRuns): Results {
  const isSame = (runs: OriginalRuns) =>
    runs.implementation === more.implementation &&
    runs.referenceDigest === more.referenceDigest &&
    runs.budgetSeconds === more.budgetSeconds;
  const same = results.original.find(isSame);
  const others = results.original.filter((runs) => runs !== same);
  const merged = same === undefined ? more : { ...more, ...totalsOf([same, more]) };
  return { ...results, original: [...others, merged] };
}

/** Adds up the counts of gates on originals. */
export function totalsOf(parts: readonly OriginalTotals[]): OriginalTotals {
  const sum = (of: (part: OriginalTotals) => number) => parts.reduce((total, part) => total + of(part), 0);
  return {
    runs: sum(({ runs }) => runs),
    falseAlarms: sum(({ falseAlarms }) => falseAlarms),
    notMeasured: sum(({ notMeasured }) => notMeasured),
    errors: sum(({ errors }) => errors),
    seconds: Math.round(sum(({ seconds }) => seconds)),
  };
}

/**
 * Returns a digest of the sources of an implementation and of what it shares with others, without tests and fixtures:
 * 12 hexadecimal digits.
 */
export function referenceDigest(implementation: string, root = packageRoot()): string {
  const dir = join(root, 'reference-impl');
  const hash = createHash('sha256');
  const files = [COMMON_FOLDER, implementation]
    .flatMap((folder) =>
      readdirSync(join(dir, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
    )
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts') && !name.includes('fixtures/'))
    .sort();
  for (const name of files) hash.update(`${name}\0`).update(readFileSync(join(dir, name)));
  return hash.digest('hex').slice(0, 12);
}
