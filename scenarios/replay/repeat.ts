import { makeUniqueDirectory } from '../host/directories.js';
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
  /** Time (`performance.now()`) after which no further run starts. The first run always starts. */
  endMs: number;
}

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
  const repetition: Repetition = { runs: 0, reproduced: 0, passed: 0, first: undefined };
  while (repetition.runs < maxRuns && !options.signal.aborted) {
    if (repetition.runs > 0 && performance.now() > options.endMs) break;
    const run = await rerun(options, schedule, makeUniqueDirectory(options.dir, RUN_PREFIX));
    if (options.signal.aborted) {
      run.drop();
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
