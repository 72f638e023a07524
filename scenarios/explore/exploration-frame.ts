import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { HISTORY_FORMAT } from '../../conformance/history/events.js';
import { Recorder } from '../../conformance/history/recorder.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { processPendingEvents } from '../../faults/waiting.js';
import { attempt } from '../host/attempt.js';
import type { TimeReport } from '../host/phase-clock.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import { removeOrReport } from '../host/removal.js';
import { kitVersion } from '../host/version.js';
import type { ExploreResult, UnfinishedResult } from './result/result.js';
import type { ExploreOptions } from './strategies/exploration.js';

/** What exists while an exploration runs. */
export interface ExplorationFrame {
  /** The options, with a signal that is also aborted when the history can no longer be written. */
  options: ExploreOptions;
  registry: Registry;
  recorder: Recorder;
  /** Directory of the evidence. */
  dir: string;
}

/** The parts of an exploration that depend on the number of its nodes. */
export interface ExplorationSteps<Outcome extends { result: UnfinishedResult }> {
  /** Records a run, and explores its crash states. */
  explore(frame: ExplorationFrame): Promise<Outcome>;
  /** Saves what belongs to the evidence besides the history. Called only when the evidence is kept. */
  save(outcome: Outcome, dir: string): Promise<void>;
  /** Writes the bundle of a violation when the history is complete. Resolves to its path; null when there is no state for it. */
  bundle(outcome: Outcome, frame: ExplorationFrame): Promise<string | null>;
  /** Releases what `explore` has made. Called in any case, also when it has failed. */
  release(): void;
}

/**
 * Runs an exploration: makes its registry, its history and the directory of its evidence, and leaves nothing but the
 * evidence of a violation, or what the user wants to keep.
 * @param report returns the time that the phases have taken so far.
 * @throws what the steps throw.
 */
export async function runInFrame<Outcome extends { result: UnfinishedResult }>(
  requested: ExploreOptions,
  report: () => TimeReport,
  steps: ExplorationSteps<Outcome>,
): Promise<ExploreResult> {
  const registry = new Registry(newRunId(), stateDirectory(), requested.out);
  const dir = requested.out ?? join(stateDirectory(), 'runs', registry.runId);
  if (requested.out === undefined) registry.made({ kind: 'directory', path: dir });
  mkdirSync(dir, { recursive: true });
  const recorder = new Recorder(join(dir, 'history.jsonl'));
  const options = { ...requested, signal: AbortSignal.any([requested.signal, recorder.failureSignal]) };
  const frame = { options, registry, recorder, dir };
  let keep = true;
  try {
    const outcome = await steps.explore(frame);
    const { result } = outcome;
    keep = options.keep || options.out !== undefined || result.verdict === 'fail';
    if (keep) await steps.save(outcome, dir);
    // The bundle contains the file of the history, so write it completely first.
    // A violation that is proven stays one when the end of the history cannot be written.
    if (result.verdict === 'fail') await attempt('the history is not complete', () => recorder.close());
    else recorder.close();
    const bundle =
      result.verdict === 'fail' && !options.signal.aborted
        ? ((await attempt('the bundle could not be written', () => steps.bundle(outcome, frame))) ?? null)
        : null;
    const time = report();
    return { ...result, tookMs: time.tookMs, time, evidence: keep ? dir : null, bundle };
  } catch (error) {
    // The error may be the effect of a Ctrl-C. Read pending signals, so that the evidence is then removed.
    await processPendingEvents();
    throw error;
  } finally {
    steps.release();
    if (!keep || options.signal.aborted) await removeOrReport(() => removeTree(dir), options.progress);
    registry.close();
    recorder.close();
  }
}

/** Records that the run of an exploration begins. */
export function recordStart({ options: { target, seed }, recorder }: ExplorationFrame): void {
  recorder.record({
    kind: 'run-started',
    format: HISTORY_FORMAT,
    target: target.name,
    protocol: target.protocol,
    seed,
    faults: ['crash-states'],
    startedAt: new Date().toISOString(),
    kitVersion: kitVersion(),
  });
}
