import type { RequirementId } from '../../conformance/requirements/requirements.js';
import type { PlantedBug } from './definition.js';
import type { PlantedPaths } from './plant.js';

export const MODE_NAMES = ['gate', 'simulate', 'explore', 'flakey'] as const;
/** Name of a mode: a strategy of hunting planted bugs. */
export type ModeName = (typeof MODE_NAMES)[number];

/**
 * Whether a mode has found a bug.
 * - `yes`: a requirement that names the bug failed.
 * - `other`: only other requirements failed.
 * - `no`: no requirement failed.
 * - `not-measured`: this mode was not tried, or could not be.
 * - `error`: the kit itself failed.
 */
export type HuntOutcome = 'yes' | 'other' | 'no' | 'not-measured' | 'error';

/** The result of one mode's hunt for one bug. */
export interface ModeResult {
  outcome: HuntOutcome;
  /** The failed requirement that names the bug; null when no such requirement failed. */
  requirement: RequirementId | null;
  /** All requirements that failed. */
  red: string[];
  /** Number of rounds of a gate, of simulated crashes, or of explored crash states. */
  runs: number;
  seconds: number;
  seed: number;
  /** The reason in one line why the mode did not find the bug; null when it did. */
  why: string | null;
}

/** A copy of a reference implementation that contains a planted bug. */
export interface PlantedCopy extends PlantedPaths {
  bug: PlantedBug;
}

export interface HuntOptions {
  seed: number;
  /** Upper bound of the time of one mode for one bug, in milliseconds. */
  budgetMs: number;
  signal: AbortSignal;
  /** Environment variables that mark every started program as part of this hunt. */
  env: Readonly<Record<string, string>>;
  /** Receives each line of progress. */
  progress(line: string): void;
}

/** A strategy of hunting the bug in a planted copy. */
export type Mode = (copy: PlantedCopy, options: HuntOptions) => Promise<ModeResult>;

/**
 * Makes the result of a mode that did not run to its end, and thus could neither find the bug nor miss it.
 */
export function inconclusiveResult(
  seed: number,
  why: string,
  outcome: 'not-measured' | 'error' = 'not-measured',
): ModeResult {
  return { outcome, requirement: null, red: [], runs: 0, seconds: 0, seed, why };
}

/**
 * Judges from the failed requirements whether the bug was found. The result names the bug's own requirement
 * if that failed, otherwise an accepted one.
 */
export function judgeHunt(
  bug: PlantedBug,
  failedRequirements: readonly string[],
  facts: Pick<ModeResult, 'runs' | 'seed'> & { tookMs: number; why: string },
): ModeResult {
  const requirement =
    [bug.requirement, ...bug.alsoAccepted].find((id) => failedRequirements.includes(id)) ?? null;
  const outcome = requirement !== null ? 'yes' : failedRequirements.length > 0 ? 'other' : 'no';
  const { runs, seed, tookMs, why } = facts;
  return {
    outcome,
    requirement,
    red: [...failedRequirements],
    runs,
    seconds: Math.round(tookMs / 100) / 10,
    seed,
    why: outcome === 'yes' ? null : why,
  };
}
