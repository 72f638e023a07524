import type { Target } from '../../conformance/target-file/definition.js';
import type { Fault } from '../../faults/fault.js';
import type { PreparedRuntime } from '../runtime/runtime.js';
import { explorationMinimum } from './crash-states.js';
import { firstTailMs, furtherPowerMs } from './places.js';

/** Number of faults that fit into one round, and the time that such a round takes on an idle machine. */
const FAULTS_PER_ROUND = 5;
const FULL_ROUND_MS = 22_000;
/** The same for a cluster: its faults wait for elections and promotions, and its drain and stop take longer. */
const FULL_CLUSTER_ROUND_MS = 50_000;
/** Time for the first power cuts: set-up of the disk, cuts, recoveries. */
const POWER_ROUND_MS = 10_000;
const STEP_MS = 5000;

/**
 * Estimates the smallest budget of a gate that tries each of these faults once, in milliseconds: whole steps of 5 s. A target
 * that starts slowly needs more.
 * @param explores true when crash states are explored, too.
 */
export function leastBudgetMs(
  target: Target,
  faults: readonly Fault[],
  runtime: PreparedRuntime,
  explores: boolean,
): number {
  const others = faults.filter(({ needs }) => needs.disk !== 'power').length;
  const power = faults.length - others;
  const hasPower = power > 0;
  const roundMs = target.nodes === undefined ? FULL_ROUND_MS : FULL_CLUSTER_ROUND_MS;
  const powerMs = hasPower ? POWER_ROUND_MS + furtherPowerMs(power) : 0;
  const roundsMs = (others / FAULTS_PER_ROUND) * roundMs + powerMs;
  const tails = Math.ceil(others / FAULTS_PER_ROUND) + (hasPower ? 1 : 0);
  const least = explores ? explorationMinimum(target) : { gateBudgetMs: 0, explorationMs: 0 };
  const ms = roundsMs + tails * firstTailMs(target, runtime) + least.explorationMs;
  return Math.ceil(Math.max(ms, least.gateBudgetMs) / STEP_MS) * STEP_MS;
}
