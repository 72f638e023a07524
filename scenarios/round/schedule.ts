import type { SyscallPoint } from '../../faults/catalogue/syscall-point.js';
import type { Fault, Needs, Random } from '../../faults/fault.js';
import { logUniformInt, sample } from '../../faults/random-choice.js';
import { between, seeded } from '../host/random.js';

/** One fault of a schedule and when it is done: after so many confirmations, or after so long. */
export interface PlannedInjection {
  fault: string;
  afterConfirms: number;
  atMostMs: number;
  /** Receivers take nothing from the wait before the fault until the target is ready again: messages grow old. */
  held?: boolean;
  /**
   * Instead: while the target still recovers from the fault before, so long after its start, as a fraction of the time
   * that a start usually takes.
   */
  inRecovery?: number;
  /** Instead: between the install and the first start. Only for the first of a round. */
  beforeStart?: true;
  /** Draws as the injection of this number did, when a round is done again; default: its number in the run. */
  number?: number;
  /** For a system call that is named and not drawn. */
  point?: SyscallPoint;
}

/** Everything about a round that is decided before it starts; it follows from the seed. */
export interface Schedule {
  seed: number;
  injections: PlannedInjection[];
  /** What its faults need: a filesystem whose size can be changed, or a disk whose power can be cut. */
  disk: Needs['disk'];
  producers: number;
  /** Messages at once in a connection. */
  depth: number;
}

/** More than any machine does in the time of a round: how many are done says the clock. */
const MAX_POWER_CUTS = 60;
const EXTRA_FAULTS = 1;
const MAX_WAIT_MS = 1000;
const LAST_FAULT = 'kill-one';
/** So long messages grow old, unless a fast target has taken as many as this. */
const HOLD_LIMITS = { confirms: 20_000, minMs: 600, maxMs: 1300 };
/** These find most: they fill a round up. */
const FILLER_FAULTS = ['kill', 'index-loss', 'kill-recovery', 'tear'];

/** Power cuts have rounds of their own. */
export function splitByPower(faults: readonly Fault[]): { power: Fault[]; others: Fault[] } {
  return {
    power: faults.filter(({ needs }) => needs.disk === 'power'),
    others: faults.filter(({ needs }) => needs.disk !== 'power'),
  };
}

/**
 * The schedule of one round. A round whose disk can lose its power has power cuts, and another one has the other faults;
 * when there are both, the former are one in three, told by the seed.
 * @param faults those that may be tried, in a fixed order.
 * @param faultsPerRound so many of the other faults are a round's own, each done at least once.
 */
export function makeSchedule(seed: number, faults: readonly Fault[], faultsPerRound: number): Schedule {
  const { power, others } = splitByPower(faults);
  if (others.length === 0) return powerSchedule(seed, power);
  if (power.length === 0) return rotationSchedule(seed, seed, others, faultsPerRound);
  if (seed % 3 === 1) return powerSchedule(seed, power);
  return rotationSchedule(seed, Math.floor(seed / 3) * 2 + (seed % 3 === 2 ? 1 : 0), others, faultsPerRound);
}

/**
 * Power cuts one after the other. Their delays are spread over two orders of magnitude: what the kernel writes back by
 * itself, and when, hides what was never synced. The first comes right after the install, some while the target
 * recovers from the one before.
 */
function powerSchedule(seed: number, faults: readonly Fault[]): Schedule {
  const random = seeded(seed).fork('schedule');
  const injections = Array.from({ length: MAX_POWER_CUTS }, (_, number): PlannedInjection => {
    if (number === 0)
      return { fault: random.pick(faults).name, afterConfirms: 0, atMostMs: 0, beforeStart: true };
    const when = {
      afterConfirms: logUniformInt(random, 1, 400),
      atMostMs: between(random, 50, MAX_WAIT_MS / 2),
    };
    const again = number > 1 && random.int(5) === 0;
    const fault = random.pick(faults).name;
    return { fault, ...when, ...(again ? { inRecovery: random.real() * 1.2 } : {}) };
  });
  return { seed, injections, disk: 'power', producers: between(random, 3, 8), depth: between(random, 1, 4) };
}

/**
 * The faults take turns: turn s tries the faults s·`mains`, s·`mains`+1, … of the list, so that turns in a row try them
 * all, and a round of its own is the same as in the row.
 */
function rotationSchedule(
  seed: number,
  turn: number,
  faults: readonly Fault[],
  faultsPerRound: number,
): Schedule {
  const random = seeded(seed).fork('schedule');
  const roundFaults = Array.from({ length: Math.min(faultsPerRound, faults.length) }, (_, own) => {
    const index = (turn * faultsPerRound + own) % faults.length;
    return faults[index];
  }).filter((fault) => fault !== undefined);
  const companions = faults.filter((fault) => FILLER_FAULTS.includes(fault.name));
  const pool = companions.length > 0 ? companions : roundFaults;
  const extraFaults = Array.from({ length: EXTRA_FAULTS }, () => random.pick(pool));
  const order = sample(random, [...roundFaults, ...extraFaults], roundFaults.length + extraFaults.length);
  // What a kill leaves behind shows only when no later fault makes the target build everything anew.
  const last = faults.filter(({ name }) => name === LAST_FAULT);
  return {
    seed,
    injections: [
      ...order.map((fault) =>
        planInjection(random, fault, fault.needs.target === 'down' && random.int(2) === 0),
      ),
      ...last.flatMap((fault) => [planInjection(random, fault, false), planInjection(random, fault, true)]),
    ],
    disk: roundFaults.some((fault) => fault.needs.disk === 'limited') ? 'limited' : 'any',
    producers: between(random, 3, 8),
    depth: between(random, 1, 4),
  };
}

/**
 * @param held for what is damaged while the target is down, for that should be old; and for what a dead service held, for
 * that should be under way.
 */
function planInjection(random: Random, { name: fault }: Fault, held: boolean): PlannedInjection {
  if (held) {
    const { minMs, maxMs, confirms } = HOLD_LIMITS;
    return { fault, held, afterConfirms: confirms, atMostMs: between(random, minMs, maxMs) };
  }
  return {
    fault,
    held,
    afterConfirms: logUniformInt(random, 1, 250),
    atMostMs: between(random, 100, MAX_WAIT_MS),
  };
}
