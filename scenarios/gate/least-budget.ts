import type { Target } from '../../conformance/target-file/definition.js';
import type { Fault } from '../../faults/fault.js';
import type { PreparedRuntime } from '../runtime/runtime.js';
import { firstTailMs } from './gate.js';

/** Number of faults that fit into one round, and the time that such a round takes on an idle machine. */
const FAULTS_PER_ROUND = 5;
const FULL_ROUND_MS = 22_000;
/** Time for the first power cuts: set-up of the disk, cuts, recoveries. */
const POWER_ROUND_MS = 10_000;
const STEP_MS = 5000;

/**
 * Estimates the smallest budget of a gate that tries each of these faults once, in milliseconds: whole steps of 5 s. A target
 * that starts slowly needs more.
 */
export function leastBudgetMs(target: Target, faults: readonly Fault[], runtime: PreparedRuntime): number {
  const others = faults.filter(({ family }) => family !== 'power-cut').length;
  const hasPower = others < faults.length;
  // A round of fewer faults is shorter, but also needs its set-up and its drain.
  const roundsMs = (others / FAULTS_PER_ROUND) * FULL_ROUND_MS;
  const tails = Math.ceil(others / FAULTS_PER_ROUND) + (hasPower ? 1 : 0);
  const ms = roundsMs + (hasPower ? POWER_ROUND_MS : 0) + tails * firstTailMs(target, runtime);
  return Math.ceil(ms / STEP_MS) * STEP_MS;
}
