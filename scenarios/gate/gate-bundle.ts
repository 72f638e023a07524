import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Evaluation } from '../../conformance/checkers/evaluate.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import type { Target } from '../../conformance/target-file/definition.js';
import type { FileHabit } from '../../faults/tracing/file-habits.js';
import { writeBundle } from '../bundle/bundle.js';
import type { GateCase } from '../bundle/manifest.js';
import { type RunFactParts, writeRunFacts } from '../bundle/run-facts.js';
import { describeTarget } from '../bundle/target.js';
import type { PlannedInjection, Schedule } from '../round/schedule.js';
import { explainLosses } from './explain-losses.js';
import type { GateResult } from './result.js';
import type { Selection } from './select-faults.js';
import { violationStory } from './violation-story.js';

/** A round in which a requirement failed. */
export interface FailedRound extends Omit<GateCase, 'kind' | 'schedule'> {
  target: Target;
  /** The planned schedule. The bundle gets the injections that were executed instead of the planned ones. */
  schedule: Schedule;
  /** Evidence directory of the whole run. */
  evidence: string;
  events: readonly HistoryEvent[];
  evaluation: Evaluation;
  /** What the services do to their files, from a traced run; default: not known. */
  habits?: readonly FileHabit[];
}

/**
 * Writes the bundle of a failed round to `file`. The bundle contains the evidence of the whole run.
 * @returns `file`.
 */
export async function writeGateBundle(failed: FailedRound, file: string): Promise<string> {
  const { target, evidence, round, runtime, power, filesystem, schedule, evaluation, events } = failed;
  const failedFindings = evaluation.findings.filter(({ verdict }) => verdict === 'fail');
  await writeBundle(file, evidence, {
    target: describeTarget(target),
    seed: schedule.seed,
    requirements: failedFindings.map(({ requirement }) => requirement),
    why: evaluation.why,
    summary: [
      ...violationStory(events, evaluation),
      ...explainLosses(events, evaluation, failed.habits ?? []),
    ],
    case: {
      kind: 'gate',
      runtime,
      power,
      filesystem,
      round,
      schedule: { ...schedule, injections: readInjections(join(evidence, `round-${round}`)) },
    },
  });
  return file;
}

/**
 * Reads the executed injections of a round, with the numbers from which a replay repeats their random draws.
 */
function readInjections(roundDir: string): PlannedInjection[] {
  const executed = JSON.parse(
    readFileSync(join(roundDir, 'injections.json'), 'utf8'),
  ) as (PlannedInjection & {
    atMs: number;
    hit: boolean;
    detail: string;
  })[];
  return executed.map(({ atMs: _atMs, hit: _hit, detail: _detail, ...planned }) => planned);
}

/**
 * Writes what a report needs to know of a gate or a sweep, and what its history does not say, into the evidence. It must
 * come before the bundle, which contains the file.
 */
export function keepGateFacts(
  dir: string,
  command: 'gate' | 'sweep',
  { target, selection }: { target: Target; selection: Selection },
  { seed, verdict, why, tookMs, replay, warnings, setup }: GateResult,
): void {
  const facts: RunFactParts = {
    ...{ command, target, seed, verdict, why, tookMs, replay, warnings, ...setup },
    notTried: selection.unavailable.map(({ name, availability }) => ({
      name,
      why: availability.why,
      remedy: availability.remedy,
    })),
  };
  writeRunFacts(dir, facts);
}
