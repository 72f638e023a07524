import type { Target } from '../../conformance/target-file/definition.js';
import { Pace } from '../round/pace.js';
import type { PowerBackendName } from '../runtime/power-backends.js';
import type { PreparedRuntime } from '../runtime/runtime.js';
import type { GateOptions } from './gate-options.js';

/**
 * Smallest remaining part of the power cuts' share of the budget with which another round of power cuts
 * starts.
 */
export const MIN_POWER_MS = 6000;
/** Time that a further fault of such a round takes: faults of a cluster, and stalls, take 5 to 20 s each. */
const POWER_FAULT_MS = 12_000;
/** Shortest time for injections that makes another round worth its set-up. */
export const MIN_INJECTIONS_MS = 2000;
/**
 * Time that the drain, the stop and the evaluation of a round are assumed to take until a round has shown it. No
 * fault is injected in this time at the end of the budget.
 */
const TYPICAL_TAIL_MS = 2500;
/** The same on a slow runtime. */
const SLOW_TAIL_MS = 20_000;
/** Time that the set-up of the first round is assumed to take on a slow runtime. */
const SLOW_SET_UP_MS = 20_000;
/**
 * Redelivery time, in seconds, above which a target is assumed to keep its leases over a crash. A shorter claim is
 * usually an upper bound that the target does not need.
 */
const LONG_REDELIVERY_S = 15;

/**
 * Returns the time that the drain, the stop and the evaluation of the first round are assumed to take. A target with
 * long leases may need its whole redelivery time to offer again what was in delivery at the last fault.
 */
export function firstTailMs(target: Target, runtime: Pick<PreparedRuntime, 'slowStartMs'>): number {
  if (runtime.slowStartMs !== undefined) return SLOW_TAIL_MS;
  const { redeliverySeconds = 0 } = target.guarantee;
  return redeliverySeconds > LONG_REDELIVERY_S ? redeliverySeconds * 1000 : TYPICAL_TAIL_MS;
}

/** Runtime and power backend of the rounds of one kind of faults, and the durations that these rounds have shown. */
export interface Place {
  runtime: PreparedRuntime;
  power: PowerBackendName;
  pace: Pace;
  /** Duration of the set-up of the latest round; before the first round, what it is assumed to take. */
  setUpMs: number;
}

/** The places of power cuts and of the other faults. They are the same unless power cuts have a runtime of their own. */
export interface Places {
  power: Place;
  others: Place;
}

/** Makes the places of a gate. */
export function makePlaces({ target, runtime, powerRuntime, power, pace }: GateOptions): Places {
  const others: Place = { runtime, power, pace: pace ?? new Pace(firstTailMs(target, runtime)), setUpMs: 0 };
  if (powerRuntime === undefined) return { power: others, others };
  return {
    power: {
      runtime: powerRuntime,
      power,
      pace: new Pace(firstTailMs(target, powerRuntime)),
      setUpMs: powerRuntime.slowStartMs === undefined ? 0 : SLOW_SET_UP_MS,
    },
    // These rounds are on this machine, whose kernel need not have the backend.
    others: { ...others, power: 'blocklog' },
  };
}

/** Returns the part of a line of progress that says where a round runs, when not all rounds run in the same place. */
export function placeText({ runtime }: Place, { powerRuntime }: Pick<GateOptions, 'powerRuntime'>): string {
  if (powerRuntime === undefined) return '';
  return runtime.name === 'vm' ? ' (containers in the lab VM)' : ' (containers on this machine)';
}

/**
 * Returns the time at the end of the budget that the first round of power cuts needs. In an emulated lab VM a single cut
 * takes many seconds, so the round gets the whole share of power cuts there.
 */
export function reservedForPowerMs(
  { power }: Places,
  tailMs: (place: Place) => number,
  faults: number,
): number {
  if (power.runtime.slowStartMs !== undefined) return Number.POSITIVE_INFINITY;
  return leastPowerRoundMs(power, tailMs(power)) + furtherPowerMs(faults);
}

/** Returns the time that the faults of a round of power cuts take in addition to the first one, in ms. */
export function furtherPowerMs(faults: number): number {
  return Math.max(0, faults - 1) * POWER_FAULT_MS;
}

/** Returns the duration of the shortest round of power cuts: its set-up comes before its first cut. */
export function leastPowerRoundMs({ setUpMs }: Pick<Place, 'setUpMs'>, tailMs: number): number {
  return setUpMs + MIN_POWER_MS + tailMs;
}

interface PlaceChoice {
  isPowerUntried: boolean;
  areOthersUntried: boolean;
  leftMs: number;
  /** Time that the first round of power cuts needs. */
  reservedMs: number;
  tailMs(place: Place): number;
}

/**
 * Chooses the place of the next round when power cuts have a runtime of their own; undefined: any. A round in an emulated
 * lab VM may take much longer than planned. So it comes when every other fault was tried, or when only the time that it
 * needs is left.
 */
export function nextPlace({ power, others }: Places, choice: PlaceChoice): Place | undefined {
  const { isPowerUntried, areOthersUntried, leftMs, reservedMs, tailMs } = choice;
  const forPowerMs = isPowerUntried ? reservedMs : 0;
  const isTime = leftMs >= others.setUpMs + MIN_INJECTIONS_MS + tailMs(others) + forPowerMs;
  if (areOthersUntried && isTime) return others;
  return isPowerUntried ? power : undefined;
}
