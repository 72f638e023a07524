import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../host/version.js';
import { PLANTED_DIR } from './definition.js';
import { type HuntResult, overallOutcome, quickestDetection } from './hunt.js';
import type { ModeName, ModeResult } from './mode.js';

/** What is known of one planted bug: what the quickest mode that found it says, and each mode by itself. */
export interface BugResult {
  id: string;
  found: boolean;
  requirement: string | null;
  runs: number;
  seconds: number;
  modes: Partial<Record<ModeName, ModeResult>>;
}

/** Gates of the original, some in a row, over one state of its sources. */
export interface OriginalRuns {
  /** Digest of the sources of the reference implementation. */
  reference: string;
  runs: number;
  falseAlarms: number;
  /** Runs that passed nothing and failed nothing. */
  notMeasured: number;
  /** Runs in which the kit failed. */
  errors: number;
  budgetSeconds: number;
  seconds: number;
}

/** What is kept in conformance/planted/results.json. */
export interface Results {
  bugs: BugResult[];
  original: Omit<OriginalRuns, 'reference' | 'budgetSeconds'> & { pieces: OriginalRuns[] };
}

export const RESULTS_FILE = join(PLANTED_DIR, 'results.json');

/** The results that are kept; none when there are none yet. */
export function readResults(file = RESULTS_FILE): Results {
  if (!existsSync(file)) return { bugs: [], original: summariseRuns([]) };
  return JSON.parse(readFileSync(file, 'utf8')) as Results;
}

export function writeResults(results: Results, file = RESULTS_FILE): void {
  writeFileSync(file, `${JSON.stringify(results, undefined, 2)}\n`);
}

/**
 * Puts new hunts in the place of older ones, mode by mode. Bugs that are not planted any more go.
 * @param ids of all bugs that are planted, in order.
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

/** The modes in the order in which they are worth trying: first those that found the bug before, the quickest of them first. */
export function quickestFirst(modes: readonly ModeName[], known: BugResult | undefined): ModeName[] {
  const secondsOf = (mode: ModeName) => {
    const earlier = known?.modes[mode];
    return earlier?.found === 'yes' ? earlier.seconds : Number.POSITIVE_INFINITY;
  };
  const foundBefore = (mode: ModeName) => Number.isFinite(secondsOf(mode));
  const found = modes.filter(foundBefore).sort((a, b) => secondsOf(a) - secondsOf(b));
  return [...found, ...modes.filter((mode) => !foundBefore(mode))];
}

/** Adds gates of the original to those that are kept; of one state of the sources they are one piece. */
export function mergeOriginalRuns(results: Results, more: OriginalRuns): Results {
  const isSame = (piece: OriginalRuns) =>
    piece.reference === more.reference && piece.budgetSeconds === more.budgetSeconds;
  const same = results.original.pieces.find(isSame);
  const others = results.original.pieces.filter((piece) => piece !== same);
  const piece = same === undefined ? more : { ...more, ...totals([same, more]) };
  return { ...results, original: summariseRuns([...others, piece]) };
}

function totals(pieces: readonly OriginalRuns[]) {
  const sum = (of: (piece: OriginalRuns) => number) => pieces.reduce((total, piece) => total + of(piece), 0);
  return {
    runs: sum(({ runs }) => runs),
    falseAlarms: sum(({ falseAlarms }) => falseAlarms),
    notMeasured: sum(({ notMeasured }) => notMeasured),
    errors: sum(({ errors }) => errors),
    seconds: Math.round(sum(({ seconds }) => seconds)),
  };
}

function summariseRuns(pieces: OriginalRuns[]): Results['original'] {
  return { ...totals(pieces), pieces };
}

/** Digest of the reference implementation's sources, tests and fixtures aside. */
export function referenceDigest(): string {
  const dir = join(packageRoot(), 'reference-impl');
  const hash = createHash('sha256');
  const files = readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts') && !name.includes('fixtures/'))
    .sort();
  for (const name of files) hash.update(`${name}\0`).update(readFileSync(join(dir, name)));
  return hash.digest('hex').slice(0, 12);
}
