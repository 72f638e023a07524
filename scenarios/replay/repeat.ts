import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import type { Schedule } from '../round/schedule.js';
import { type Rerun, type RerunOptions, rerun } from './rerun.js';

/** How often a violation came again. */
export interface ReproductionRate {
  runs: number;
  reproduced: number;
  /** Runs that passed; the rest proved nothing, or failed otherwise. */
  passed: number;
}

export interface Repetition extends ReproductionRate {
  /** The first run that showed it again; its evidence is there until it is dropped. */
  first: Rerun | undefined;
}

export interface RepeatOptions extends RerunOptions {
  /** Requirements, one of which has to fail again. */
  requirements: readonly string[];
  /** Evidence goes below it. */
  dir: string;
  /** `performance.now()`: no run is begun after it. */
  endMs: number;
}

/** Runs a schedule again and again, at most `most` times; ends at the first that shows the violation if so asked. */
export async function repeat(
  options: RepeatOptions,
  schedule: Schedule,
  maxRuns: number,
  until: 'all' | 'first',
): Promise<Repetition> {
  const repetition: Repetition = { runs: 0, reproduced: 0, passed: 0, first: undefined };
  while (repetition.runs < maxRuns && !options.signal.aborted) {
    if (repetition.runs > 0 && performance.now() > options.endMs) break;
    const run = await rerun(options, schedule, mkdtempSync(join(options.dir, 'run-')));
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
