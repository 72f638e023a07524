import type { SyscallPoint } from '../../faults/catalogue/syscall-point.js';
import type { Aim, Fault, Needs, Random } from '../../faults/fault.js';
import { logUniformInt, sample } from '../../faults/random-choice.js';
import { between, seeded } from '../host/random.js';

/**
 * One planned fault. It is injected after `afterConfirms` more confirmations, or after `maxWaitMs` if that is
 * earlier.
 */
export interface PlannedInjection {
  fault: string;
  afterConfirms: number;
  maxWaitMs: number;
  /**
   * True makes receivers accept nothing from the wait before the fault until the target is ready again, so
   * that messages grow old.
   */
  holdReceivers?: boolean;
  /**
   * If set, the fault is injected while the target still recovers from the fault before. The value is the
   * time since the start of the target, as a fraction of the usual duration of a start.
   */
  inRecovery?: number;
  /**
   * If set, the fault is injected between the install and the first start. Only the first fault of a round
   * may have it.
   */
  beforeStart?: true;
  /**
   * Number of the injection whose random draws are repeated in a replay. Default: the injection's own number
   * in the run.
   */
  number?: number;
  /** Nodes on which the fault acted in its run, for a replay; undefined when they are drawn, and for a target without nodes. */
  nodes?: string[] | undefined;
  /** What the injection aimed at in its run, for a replay; undefined when the fault drew everything from its number. */
  aim?: Aim | undefined;
  /** The system call at which the fault acts; undefined when the fault draws it. */
  point?: SyscallPoint;
}

/** Everything about a round that is decided before it starts. It follows from the seed. */
export interface Schedule {
  seed: number;
  injections: PlannedInjection[];
  /**
   * Kind of disk that the faults of the round need: a filesystem whose size can be changed, or a disk whose
   * power can be cut.
   */
  disk: Needs['disk'];
  /** Number of producers. */
  producers: number;
  /** Upper bound of the messages that are in flight on one connection. */
  depth: number;
}

/**
 * Number of planned power cuts. It is more than any machine makes in the time of a round: the clock ends the
 * round.
 */
const MAX_POWER_CUTS = 60;
/** Number of drawn faults in addition to the faults of a round's turn. */
const EXTRA_FAULTS = 1;
const MAX_WAIT_MS = 1000;
/** The only fault that also hits a target that was never started, or that recovers from the fault before. */
const POWER_CUT = 'power-cut';
/** Fault with which a round ends. */
export const LAST_FAULT = 'kill-one';
/**
 * Limits of a hold: messages grow old for a time in this range, or until a fast target has confirmed this
 * number of messages.
 */
const HOLD_LIMITS = { confirms: 20_000, minMs: 600, maxMs: 1300 };
/** The faults that find most bugs. They fill up a round. */
const FILLER_FAULTS = ['kill', 'index-loss', 'kill-recovery', 'tear'];

/** Faults whose injection waits for several effects in turn. On a slow machine, one takes as long as the rest of a round. */
const SLOW_FAULTS = ['io-error'];

/** Separates power cuts from the other faults, because power cuts have separate rounds. */
export function splitByPower(faults: readonly Fault[]): { power: Fault[]; others: Fault[] } {
  return {
    power: faults.filter(({ needs }) => needs.disk === 'power'),
    others: faults.filter(({ needs }) => needs.disk !== 'power'),
  };
}

/** Reports whether the round of a seed has power cuts, when faults of both kinds are given. */
export function isPowerSeed(seed: number): boolean {
  return seed % 3 === 1;
}

/**
 * Makes the schedule of one round. A round whose disk can lose its power has power cuts; any other round has
 * the other faults. When faults of both kinds are given, one round in three has power cuts, which the seed
 * decides.
 * @param faults the faults that may be tried, in a fixed order.
 * @param faultsPerRound number of the other faults whose turn it is in a round. Each of them is injected at
 * least once.
 */
export function makeSchedule(seed: number, faults: readonly Fault[], faultsPerRound: number): Schedule {
  const { power, others } = splitByPower(faults);
  if (others.length === 0) return powerSchedule(seed, power);
  if (power.length === 0) return rotationSchedule(seed, seed, others, faultsPerRound);
  if (isPowerSeed(seed)) return powerSchedule(seed, power);
  return rotationSchedule(seed, Math.floor(seed / 3) * 2 + (seed % 3 === 2 ? 1 : 0), others, faultsPerRound);
}

/**
 * Makes a round of power cuts, one after another. Their delays are spread over two orders of magnitude: what
 * the kernel writes back by itself, and when, hides what was never synced. The first cut comes right after
 * the install, and some come while the target recovers from the cut before. Of several faults, each has its turn first.
 */
function powerSchedule(seed: number, faults: readonly Fault[]): Schedule {
  const random = seeded(seed).fork('schedule');
  const cuts = faults.filter(({ name }) => name === POWER_CUT);
  // The first cut, right after the install, is no turn: it can lose no message.
  const order = sample(seeded(seed).fork('turns'), faults, faults.length);
  const isOnce = ({ oncePerRound }: Fault) => oncePerRound === true;
  // Nothing that counts on other nodes may follow the loss of a disk.
  const turns = [...order.filter((fault) => !isOnce(fault)), ...order.filter(isOnce)];
  const injections: PlannedInjection[] = [];
  let isDiskLost = false;
  for (let number = 0; number < MAX_POWER_CUTS; number++) {
    if (number === 0 && cuts.length > 0) {
      injections.push({
        ...{ fault: random.pick(cuts).name, afterConfirms: 0, maxWaitMs: 0 },
        beforeStart: true,
      });
      continue;
    }
    const when = {
      afterConfirms: logUniformInt(random, 1, 400),
      maxWaitMs: between(random, 50, MAX_WAIT_MS / 2),
    };
    const again = number > 1 && random.int(5) === 0;
    // Until the node with the empty disk holds everything again, only cuts that take nothing that was flushed may follow.
    const allowed = isDiskLost ? faults.filter(({ needs }) => needs.nodes !== 'cluster') : faults;
    if (allowed.length === 0) break;
    const drawn = random.pick(allowed);
    const picked = turns.shift() ?? drawn;
    if (!allowed.includes(picked)) continue;
    if (isOnce(picked)) isDiskLost = true;
    const { name: fault } = picked;
    if (drawHold(random, picked)) injections.push({ fault, ...when, holdReceivers: true });
    else
      injections.push({
        fault,
        ...when,
        ...(again && fault === POWER_CUT ? { inRecovery: random.real() * 1.2 } : {}),
      });
  }
  return { seed, injections, disk: 'power', producers: between(random, 3, 8), depth: between(random, 1, 4) };
}

/**
 * Makes a round of other faults, which take turns. Turn s tries the faults s·`faultsPerRound`,
 * s·`faultsPerRound` + 1, … of the list. Consecutive turns therefore try all faults, and a single round is
 * the same as in the sequence.
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
  const repeatable = roundFaults.filter(({ oncePerRound }) => oncePerRound !== true);
  const pool = companions.length > 0 ? companions : repeatable;
  const extraFaults = pool.length === 0 ? [] : Array.from({ length: EXTRA_FAULTS }, () => random.pick(pool));
  // A round that runs out of time leaves out the extra faults first, and then a slow one.
  const own = sample(random, roundFaults, roundFaults.length);
  const isSlow = ({ name }: Fault) => SLOW_FAULTS.includes(name);
  const order = [...own.filter((fault) => !isSlow(fault)), ...own.filter(isSlow), ...extraFaults];
  // End with kills: what a kill leaves behind shows only when no later fault makes the target rebuild
  // everything.
  const last = faults.filter(({ name }) => name === LAST_FAULT);
  return {
    seed,
    injections: [
      ...order.map((fault) => planInjection(random, fault, drawHold(random, fault))),
      ...last.flatMap((fault) => [planInjection(random, fault, false), planInjection(random, fault, true)]),
    ],
    disk: roundFaults.some((fault) => fault.needs.disk === 'limited') ? 'limited' : 'any',
    producers: between(random, 3, 8),
    depth: between(random, 1, 4),
  };
}

/**
 * Draws whether receivers accept nothing before and during a fault: what it could lose must not be delivered before.
 */
function drawHold(random: Random, { holdsReceivers, needs }: Fault): boolean {
  if (holdsReceivers === 'always') return true;
  return (holdsReceivers === 'sometimes' || needs.target === 'down') && random.int(2) === 0;
}

/**
 * Plans one fault and draws when it is injected.
 * @param holdReceivers true for a fault that damages stored messages while the target is down, because these
 * messages should be old; also true for a fault that kills a service which holds messages, because deliveries
 * should be under way.
 */
function planInjection(random: Random, { name: fault }: Fault, holdReceivers: boolean): PlannedInjection {
  if (holdReceivers) {
    const { minMs, maxMs, confirms } = HOLD_LIMITS;
    return { fault, holdReceivers, afterConfirms: confirms, maxWaitMs: between(random, minMs, maxMs) };
  }
  return {
    fault,
    holdReceivers,
    afterConfirms: logUniformInt(random, 1, 250),
    maxWaitMs: between(random, 100, MAX_WAIT_MS),
  };
}
