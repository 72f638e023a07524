import type { Schedule } from '../round/schedule.js';
import { ddmin } from './ddmin.js';
import { type RepeatOptions, type Repetition, repeat } from './repeat.js';

/**
 * Upper bound of the runs per schedule. It is more than one because a violation may not occur in every run.
 */
const RUNS_PER_SCHEDULE = 2;

/** The smaller schedule, and the run that reproduced the violation with it. */
export interface ShrunkSchedule {
  schedule: Schedule;
  repetition: Repetition;
  /** Number of schedules that were tried. */
  triedSchedules: number;
}

/**
 * Makes a schedule smaller as long as the violation still occurs: first fewer faults, then fewer producers
 * with fewer messages in flight, then shorter waits. The function only repeats runs, so the result is
 * sufficient but perhaps not minimal.
 * @param first repetition in which the whole schedule reproduced the violation.
 */
export async function shrinkSchedule(
  options: RepeatOptions,
  schedule: Schedule,
  first: Repetition,
): Promise<ShrunkSchedule> {
  const shrunk: ShrunkSchedule = { schedule, repetition: first, triedSchedules: 0 };
  const isOutOfTime = () => performance.now() > options.endMs || options.signal.aborted;
  const fails = async (smaller: Schedule): Promise<boolean> => {
    shrunk.triedSchedules++;
    options.progress(`smaller: ${describeSchedule(smaller)}`);
    const shown = await repeat(options, smaller, RUNS_PER_SCHEDULE, 'first');
    if (shown.first === undefined) return false;
    shrunk.repetition.first?.drop();
    shrunk.schedule = smaller;
    shrunk.repetition = shown;
    return true;
  };
  const { injections } = schedule;
  // Most violations need only one fault, so try each kind of fault alone first.
  const oneFaultSuffices = injections.length > 1 ? await tryFaultsAlone(schedule, fails, isOutOfTime) : false;
  if (!oneFaultSuffices)
    await ddmin(injections, (part) => fails({ ...schedule, injections: [...part] }), isOutOfTime);
  for (const change of [
    (now: Schedule) => ({ ...now, producers: 1, depth: 1 }),
    (now: Schedule) => ({ ...now, producers: 1 }),
    (now: Schedule) => ({ ...now, depth: 1 }),
    (now: Schedule) => shortenWaits(now, 8),
    (now: Schedule) => shortenWaits(now, 3),
  ]) {
    const smaller = change(shrunk.schedule);
    if (!isOutOfTime() && describeSchedule(smaller) !== describeSchedule(shrunk.schedule))
      await fails(smaller);
  }
  return shrunk;
}

/**
 * Tries each kind of fault of the schedule alone, in the order of its first injection.
 * @returns true when one of them reproduced the violation.
 */
async function tryFaultsAlone(
  schedule: Schedule,
  fails: (smaller: Schedule) => Promise<boolean>,
  isOutOfTime: () => boolean,
): Promise<boolean> {
  const kinds = new Set<string>();
  for (const one of schedule.injections) {
    // A fault in a recovery needs the crash before it.
    if (kinds.has(one.fault) || one.inRecovery !== undefined || isOutOfTime()) continue;
    kinds.add(one.fault);
    if (await fails({ ...schedule, injections: [one] })) return true;
  }
  return false;
}

function shortenWaits(schedule: Schedule, by: number): Schedule {
  const injections = schedule.injections.map((one) => ({
    ...one,
    afterConfirms: Math.ceil(one.afterConfirms / by),
  }));
  return { ...schedule, injections };
}

/** Describes a schedule in one line. */
export function describeSchedule({ injections, producers, depth }: Schedule): string {
  const faults = injections
    .map(({ fault, afterConfirms, point }) => {
      if (point === undefined) return `${fault} after ${afterConfirms}`;
      return `${point.what} at ${point.nth}. ${point.kind} of ${point.service}`;
    })
    .join(', ');
  return `${producers} producers × ${depth}; ${faults}`;
}
