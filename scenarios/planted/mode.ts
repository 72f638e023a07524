import type { RequirementId } from '../../conformance/requirements/requirements.js';
import type { PlantedBug } from './definition.js';

export const MODE_NAMES = ['gate', 'simulate', 'explore', 'flakey'] as const;
export type ModeName = (typeof MODE_NAMES)[number];

/**
 * Whether a mode has found a bug.
 * - `other`: something turned red, but nothing that names the bug.
 * - `not-measured`: this mode was not tried, or could not be.
 * - `error`: the kit itself failed.
 */
export type HuntOutcome = 'yes' | 'other' | 'no' | 'not-measured' | 'error';

/** One mode's hunt for one bug. */
export interface ModeResult {
  outcome: HuntOutcome;
  /** The requirement that names the bug, when it turned red. */
  requirement: RequirementId | null;
  /** All requirements that turned red. */
  red: string[];
  /** Rounds of a gate, simulated crashes, explored crash states. */
  runs: number;
  seconds: number;
  seed: number;
  /** Of what was not found: why, in a line. */
  why: string | null;
}

/** A copy of the reference implementation with a bug in it. */
export interface PlantedCopy {
  bug: PlantedBug;
  /** Its target file. */
  target: string;
  /** Its own program. */
  program: string;
}

export interface HuntOptions {
  seed: number;
  /** The most that one mode may take for one bug. */
  budgetMs: number;
  signal: AbortSignal;
  /** Marks every program as one of this hunt. */
  env: Readonly<Record<string, string>>;
  progress(line: string): void;
}

/** A way of looking for bugs in a copy. */
export type Mode = (copy: PlantedCopy, options: HuntOptions) => Promise<ModeResult>;

/** A result in which nothing was looked at. */
export function inconclusiveResult(
  seed: number,
  why: string,
  outcome: 'not-measured' | 'error' = 'not-measured',
): ModeResult {
  return { outcome, requirement: null, red: [], runs: 0, seconds: 0, seed, why };
}

/** Judges what turned red: the bug's own requirement first, then those that rightly name it too. */
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
