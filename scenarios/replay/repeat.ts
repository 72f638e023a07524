import { makeUniqueDirectory } from '../host/directories.js';
import { maxDrainMs } from '../round/drain.js';
import type { Schedule } from '../round/schedule.js';
import { type Rerun, type RerunOptions, rerun } from './rerun.js';

/** Beginning of the names of the directories of runs. */
export const RUN_PREFIX = 'run-';

/** Number of runs of a schedule, and of those that reproduced a violation. */
export interface ReproductionRate {
  runs: number;
  reproduced: number;
  /** Runs that passed. The remaining runs proved nothing, or failed at another requirement. */
  passed: number;
  /**
   * True when a run was stopped because the budget was used up. It does not count as a run. A run that had ended by
   * itself counts, also when the budget is used up while it is judged.
   */
  outOfTime: boolean;
}

/** Result of repeated runs of a schedule. */
export interface Repetition extends ReproductionRate {
  /** The first run that reproduced the violation. Its evidence exists until `drop` is called. */
  first: Rerun | undefined;
}

export interface RepeatOptions extends RerunOptions {
  /** Requirements that the violation concerns. A run reproduces the violation when one of them fails. */
  requirements: readonly string[];
  /** Directory in which every run makes a directory for its evidence. */
  dir: string;
  /**
   * Time (`performance.now()`) after which no further run starts. The first run always starts. A run that has begun
   * before is stopped when the longest drain of its target has passed since then.
   */
  endMs: number;
  /** Upper bound of the time that a run may take after `endMs`. Default: the longest drain of the target. */
  graceMs?: number;
}

/** Shortest time that the first start of a target gets, even at the end of the budget. */
const MIN_START_MS = 5000;

/**
 * Runs a schedule repeatedly, at most `maxRuns` times.
 * @param until with 'first', stops after the first run that reproduces the violation.
 */
export async function repeat(
  options: RepeatOptions,
  schedule: Schedule,
  maxRuns: number,
  until: 'all' | 'first',
): Promise<Repetition> {
  const { signal, endMs, target } = options;
  const graceMs = options.graceMs ?? maxDrainMs(target.guarantee.redeliverySeconds);
  const repetition: Repetition = { runs: 0, reproduced: 0, passed: 0, outOfTime: false, first: undefined };
  while (repetition.runs < maxRuns && !signal.aborted) {
    const leftMs = endMs - performance.now();
    if (repetition.runs > 0 && leftMs < 0) break;
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(), Math.max(0, leftMs) + graceMs);
    const runOptions: RerunOptions = {
      ...options,
      signal: AbortSignal.any([signal, deadline.signal]),
      startTimeoutMs: Math.max(
        MIN_START_MS,
        Math.min(leftMs, options.startTimeoutMs ?? Number.POSITIVE_INFINITY),
      ),
    };
    const run = await rerun(runOptions, schedule, makeUniqueDirectory(options.dir, RUN_PREFIX))
      .catch((error: unknown) => {
        // The stop of a run may be the cause of its error.
        if (signal.aborted || !deadline.signal.aborted) throw error;
        return undefined;
      })
      .finally(() => clearTimeout(timer));
    if (run === undefined || wasInterrupted(run)) {
      run?.drop();
      repetition.outOfTime = !signal.aborted;
      if (repetition.outOfTime)
        options.progress(`run ${repetition.runs + 1} was stopped: the budget is used`);
      break;
    }
    repetition.runs++;
    const { verdict, findings, why } = run.evaluation;
    const reproduced = findings.some(
      (one) => one.verdict === 'fail' && options.requirements.includes(one.requirement),
    );
    if (verdict === 'pass') repetition.passed++;
    if (reproduced) repetition.reproduced++;
    options.progress(`run ${repetition.runs} of ${maxRuns}: ${verdict}: ${why}`);
    if (reproduced && repetition.first === undefined) repetition.first = run;
    else run.drop();
    if (reproduced && until === 'first') break;
  }
  return repetition;
}

function wasInterrupted({ events }: Rerun): boolean {
  return events.some((event) => event.kind === 'run-ended' && event.how === 'interrupted');
}
