import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { commandLine } from '../host/command-line.js';
import { packageRoot } from '../host/version.js';
import { PLANTED_DIR } from './definition.js';
import { type HuntResult, overallOutcome, quickestDetection } from './hunt.js';
import type { ModeName, ModeResult } from './mode.js';

/** The saved results of one planted bug: those of the quickest mode that found it, and those of each mode. */
export interface BugResult {
  id: string;
  found: boolean;
  requirement: string | null;
  runs: number;
  seconds: number;
  modes: Partial<Record<ModeName, ModeResult>>;
}

/** Totals of gates on the original, all with the same sources and the same budget. */
export interface OriginalRuns {
  /** Digest of the sources of the reference implementation. */
  referenceDigest: string;
  runs: number;
  falseAlarms: number;
  /** Number of runs with the verdict not-measured. */
  notMeasured: number;
  /** Number of runs in which the kit failed. */
  errors: number;
  budgetSeconds: number;
  seconds: number;
}

/** Version of the layout of results.json; a file of another version is refused. */
export const RESULTS_FORMAT = 2;

/** The contents of conformance/planted/results.json. */
export interface Results {
  format: typeof RESULTS_FORMAT;
  bugs: BugResult[];
  original: Omit<OriginalRuns, 'referenceDigest' | 'budgetSeconds'> & { batches: OriginalRuns[] };
}

/** Path of the saved results. */
export const RESULTS_FILE = join(PLANTED_DIR, 'results.json');

/**
 * Reads the saved results. Returns empty results when the file does not exist.
 * @throws KitError bad-target when the file has another format.
 */
export function readResults(file = RESULTS_FILE): Results {
  if (!existsSync(file)) return { format: RESULTS_FORMAT, bugs: [], original: summariseRuns([]) };
  const results = JSON.parse(readFileSync(file, 'utf8')) as Results;
  if (results.format === RESULTS_FORMAT) return results;
  throw new KitError(
    'bad-target',
    `${file}: format: expected ${RESULTS_FORMAT}, found ${results.format ?? 'none'}; remove it and run: ${commandLine('planted', '--write')}`,
  );
}

/** Saves the results, as indented JSON. */
export function writeResults(results: Results, file = RESULTS_FILE): void {
  writeFileSync(file, `${JSON.stringify(results, undefined, 2)}\n`);
}

/**
 * Replaces saved results by those of new hunts, mode by mode. Removes the results of bugs that do not exist
 * any more.
 * @param ids ids of all planted bugs, in the order of the result.
 */
export function mergeHunts(results: Results, hunts: readonly HuntResult[], ids: readonly string[]): Results {
  const bugs = ids.flatMap((id) => {
    const earlier = results.bugs.find((bug) => bug.id === id);
    const fresh = hunts.find((hunt) => hunt.id === id);
    const modes = { ...earlier?.modes, ...fresh?.modes };
    return Object.keys(modes).length === 0 ? [] : [bugResult(id, modes)];
  });
  return { ...results, bugs };
}

function bugResult(id: string, modes: HuntResult['modes']): BugResult {
  const best = quickestDetection({ modes });
  return {
    id,
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

/** Adds gates on the original to the saved ones. Gates with the same sources and budget form one batch. */
export function mergeOriginalRuns(results: Results, more: OriginalRuns): Results {
  const isSame = (batch: OriginalRuns) =>
    batch.referenceDigest === more.referenceDigest && batch.budgetSeconds === more.budgetSeconds;
  const same = results.original.batches.find(isSame);
  const others = results.original.batches.filter((batch) => batch !== same);
  const batch = same === undefined ? more : { ...more, ...totals([same, more]) };
  return { ...results, original: summariseRuns([...others, batch]) };
}

function totals(batches: readonly OriginalRuns[]) {
  const sum = (of: (batch: OriginalRuns) => number) => batches.reduce((total, batch) => total + of(batch), 0);
  return {
    runs: sum(({ runs }) => runs),
    falseAlarms: sum(({ falseAlarms }) => falseAlarms),
    notMeasured: sum(({ notMeasured }) => notMeasured),
    errors: sum(({ errors }) => errors),
    seconds: Math.round(sum(({ seconds }) => seconds)),
  };
}

function summariseRuns(batches: OriginalRuns[]): Results['original'] {
  return { ...totals(batches), batches };
}

/**
 * Returns a digest of the reference implementation's sources without tests and fixtures: 12 hexadecimal
 * digits.
 */
export function referenceDigest(): string {
  const dir = join(packageRoot(), 'reference-impl');
  const hash = createHash('sha256');
  const files = readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts') && !name.includes('fixtures/'))
    .sort();
  for (const name of files) hash.update(`${name}\0`).update(readFileSync(join(dir, name)));
  return hash.digest('hex').slice(0, 12);
}
