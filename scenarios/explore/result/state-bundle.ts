import { join } from 'node:path';
import { submittedIds } from '../../../conformance/checkers/crash-states.js';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import { writeBundle } from '../../bundle/bundle.js';
import { describeTarget } from '../../bundle/target.js';
import type { RecordedRun } from '../record/record.js';
import type { ExploreResult } from './result.js';

/** An exploration that found a broken crash state. */
export interface FailedExploration {
  target: Target;
  seed: number;
  run: Pick<RecordedRun, 'id' | 'end' | 'filesystem' | 'digests'>;
  result: Pick<ExploreResult, 'why' | 'smallest' | 'requirements'>;
  /** Directory with the history, the image and the log. */
  evidence: string;
  events: readonly HistoryEvent[];
}

/**
 * Writes the bundle of the smallest broken state into the evidence. Resolves to the path of the file, or to
 * null when there is no such state.
 */
export async function writeStateBundle(failed: FailedExploration): Promise<string | null> {
  const { target, seed, run, result, evidence, events } = failed;
  const { smallest } = result;
  if (smallest === null) return null;
  const file = join(evidence, 'bundle.tar.gz');
  await writeBundle(file, evidence, {
    target: describeTarget(target),
    seed,
    requirements: result.requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id),
    why: result.why,
    summary: smallest.story,
    case: {
      kind: 'crash-state',
      state: smallest.state,
      ...(smallest.recovery === null ? {} : { recovery: smallest.recovery }),
      end: run.end,
      filesystem: run.filesystem,
      digests: submittedIds(events).map((id) => run.digests.get(id) ?? id),
      run: run.id,
    },
  });
  return file;
}
