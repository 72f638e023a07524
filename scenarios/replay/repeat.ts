import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import type { Schedule } from '../round/schedule.js';
import { type Rerun, type RerunOptions, rerun } from './rerun.js';

/** How often a violation came again. */
export interface Rate {
  runs: number;
  reproduced: number;
  /** Runs that passed; the rest proved nothing, or failed otherwise. */
  passed: number;
}

export interface Repetition extends Rate {
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
  most: number,
  until: 'all' | 'first',
): Promise<Repetition> {
  const found: Repetition = { runs: 0, reproduced: 0, passed: 0, first: undefined };
  while (found.runs < most && !options.signal.aborted) {
    if (found.runs > 0 && performance.now() > options.endMs) break;
    const run = await rerun(options, schedule, mkdtempSync(join(options.dir, 'run-')));
    if (options.signal.aborted) {
      run.drop();
      break;
    }
    found.runs++;
    const { verdict, findings, why } = run.evaluation;
    const again = findings.some(
      (one) => one.verdict === 'fail' && options.requirements.includes(one.requirement),
    );
    if (verdict === 'pass') found.passed++;
    if (again) found.reproduced++;
    options.progress(`run ${found.runs} of ${most}: ${verdict}: ${why}`);
    if (again && found.first === undefined) found.first = run;
    else run.drop();
    if (again && until === 'first') break;
  }
  return found;
}
