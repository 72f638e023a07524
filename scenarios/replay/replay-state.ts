import { join, resolve } from 'node:path';
import { AtRiskMessages } from '../../conformance/checkers/crash-states.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { readHistory } from '../../conformance/history/reader.js';
import { markOf } from '../../conformance/protocols/message.js';
import type { Target } from '../../conformance/target-file/definition.js';
import type { CrashModel } from '../../faults/write-log/model.js';
import { type CrashState, formatState } from '../../faults/write-log/state.js';
import { type Bundle, originOf, writeBundle } from '../bundle/bundle.js';
import type { CrashStateCase } from '../bundle/manifest.js';
import type { Inspection } from '../explore/inspectors/inspection.js';
import { explainLoss } from '../explore/result/explain-loss.js';
import { describeState } from '../explore/result/missing-writes.js';
import { logPositionOf } from '../explore/strategies/strategy-run.js';
import { attempt } from '../host/attempt.js';
import type { Registry } from '../host/registry.js';
import { scratchDirOf } from '../round/launch.js';
import { processRuntime } from '../runtime/process/process-runtime.js';
import { type BundleDisk, openBundleDisk } from './bundle-disk.js';
import type { RecordedDisk } from './mounted-disk.js';
import type { ReplayResult } from './replay.js';
import { createReplayInspector } from './replay-inspector.js';
import { shrinkState } from './shrink-state.js';

export interface StateReplayOptions {
  target: Target;
  /** Command line that records a new run of this target. */
  recordAnew: string;
  shrink: boolean;
  budgetMs: number;
  /** Directory for the images and logs. */
  dir: string;
  registry: Registry;
  signal: AbortSignal;
  progress(line: string): void;
}

/**
 * Makes exactly the disk of a bundle's crash state, lets the target recover from it, and judges the result. The
 * target that wrote the disk is the one of the recorded run, whatever `options.target` is.
 * With `shrink`, also looks for a failing state with fewer missing writes.
 */
export async function replayState(
  bundle: Bundle,
  stateCase: CrashStateCase,
  options: StateReplayOptions,
): Promise<ReplayResult> {
  const bundleDisk = openBundleDisk(bundle, stateCase, options.dir);
  try {
    return await replayStateOn(bundleDisk, bundle, stateCase, options);
  } finally {
    bundleDisk.disk.recording.close();
  }
}

async function replayStateOn(
  { disk, state, outer }: BundleDisk,
  bundle: Bundle,
  stateCase: CrashStateCase,
  options: StateReplayOptions,
): Promise<ReplayResult> {
  const { target, progress, registry, dir } = options;
  const endMs = performance.now() + options.budgetMs;
  const { model } = disk.recording;
  const addressOf = (inner: CrashState) =>
    [outer, inner].flatMap((one) => (one ? [formatState(one)] : [])).join('>');
  const events = readHistory(join(bundle.dir, 'history.jsonl'));
  const atRisk = new AtRiskMessages(events);
  const runtime = await processRuntime.prepare(target, progress);
  const inspector = createReplayInspector({
    target,
    stateCase,
    disk,
    events,
    required: (crash) => {
      const { prefix } = outer ?? crash;
      return atRisk.idsOf(atRisk.required({ prefix, entriesBegun: prefix + 1 }));
    },
    dir: join(dir, 'states'),
    registry,
    runtime,
    scratch: scratchDirOf(bundle.dir),
    signal: options.signal,
  });
  try {
    const lostIn = (crash: CrashState, { heldBits }: Inspection) =>
      atRisk.missing({ ...logPositionOf(outer ?? crash), heldBits });
    const inspection = await inspector.inspect(state);
    const lost = lostIn(state, inspection);
    progress(`${stateCase.state}: ${describeInspection(inspection, lost)}`);
    const failed = isFailing(inspection, lost);
    let smallest = state;
    if (failed && options.shrink) {
      const isOutOfTime = () => performance.now() > endMs || options.signal.aborted;
      smallest = await shrinkState(
        model,
        state,
        async (smaller) => {
          const smallerInspection = await inspector.inspect(smaller);
          const lostAgain = lostIn(smaller, smallerInspection);
          // Accept a smaller state only if it shows the same loss, and not another failure.
          return (
            isFailing(smallerInspection, lostAgain) &&
            (lost.length === 0 || lostAgain.some((id) => lost.includes(id)))
          );
        },
        isOutOfTime,
      );
      progress(`smallest: ${addressOf(smallest)}`);
    }
    const smallestInspection = await inspector.inspect(smallest);
    const lostInSmallest = lostIn(smallest, smallestInspection);
    const story =
      outer === undefined
        ? describeLoss(disk, stateCase, events, atRisk, smallest, lostInSmallest, smallestInspection)
        : describeLossInRecovery(model, outer, smallest, lostInSmallest, smallestInspection);
    const shrunkBundle =
      formatState(smallest) === formatState(state)
        ? null
        : ((await attempt('the smaller bundle could not be written', () =>
            writeShrunk(bundle, { ...stateCase, state: addressOf(smallest) }, story),
          )) ?? null);
    const why = `${describeInspection(inspection, lost)} in crash state ${stateCase.state}; only the recovery of ${target.name} was tested, on the disk that the recorded run had written`;
    return {
      bundle: bundle.file,
      target: target.name,
      kind: 'crash-state',
      requirements: bundle.manifest.requirements,
      verdict: inspection.unmountable ? 'not-measured' : failed ? 'fail' : 'pass',
      why,
      meaning: null,
      runs: 1,
      reproduced: failed ? 1 : 0,
      reproducer: addressOf(smallest),
      story,
      judged: 'recovery',
      recordAnew: options.recordAnew,
      shrunkBundle,
    };
  } finally {
    inspector.close();
  }
}

/** Reports whether a state shows a failure. A disk that cannot be mounted shows nothing about the target. */
export function isFailing(
  { recovered, wrongCount: wrong, unmountable }: Inspection,
  lost: readonly string[],
): boolean {
  return !unmountable && (!recovered || lost.length > 0 || wrong > 0);
}

/** Describes in one phrase what was found. */
export function describeInspection(
  { recovered, wrongCount: wrong, detail, unmountable }: Inspection,
  lost: readonly string[],
): string {
  if (unmountable) return `its disk cannot be mounted: ${detail}`;
  if (!recovered) return `no recovery: ${detail}, with ${lost.length} confirmed messages at risk`;
  if (lost.length > 0) return `${lost.length} confirmed messages are lost`;
  if (wrong > 0) return `${wrong} things are wrong: ${detail}`;
  return 'nothing is lost';
}

/**
 * Describes how a message was lost: where it was confirmed, what was not yet flushed, and where the cut was.
 */
function describeLoss(
  { recording }: RecordedDisk,
  { run }: CrashStateCase,
  events: readonly HistoryEvent[],
  atRisk: AtRiskMessages,
  state: CrashState,
  [id]: readonly string[],
  inspection: Inspection,
): string[] {
  const cut = describeState(recording.model, state);
  const submitted = events.find((event) => event.kind === 'submitted' && event.id === id);
  const confirmedAt = id === undefined ? undefined : atRisk.confirmedAtEntry(id);
  if (submitted?.kind !== 'submitted' || confirmedAt === undefined)
    return [cut, inspection.detail].filter(Boolean);
  const { lines } = explainLoss(recording, markOf(run, submitted.id), submitted.sizeBytes, confirmedAt);
  return [...lines.map((line) => `message ${submitted.id}: ${line}`), cut, `message ${submitted.id}: gone`];
}

/**
 * Describes a loss in a recovery: the message had survived the cut of the run, but not the cut of the
 * recovery.
 */
function describeLossInRecovery(
  model: CrashModel,
  outer: CrashState,
  state: CrashState,
  [id]: readonly string[],
  { detail }: Inspection,
): string[] {
  const lines = [`the run was cut at ${formatState(outer)}, and the recovery from there again:`];
  lines.push(describeState(model, state));
  return [...lines, id === undefined ? detail : `message ${id}: gone`].filter(Boolean);
}

async function writeShrunk(bundle: Bundle, smallestCase: CrashStateCase, summary: string[]): Promise<string> {
  const { file, dir, manifest } = bundle;
  const to = resolve(file).replace(/(\.tar\.gz)?$/, '.small.tar.gz');
  const { target, seed, requirements, why } = manifest;
  const parts = { target, seed, requirements, why, summary, case: smallestCase };
  await writeBundle(to, dir, parts, originOf(bundle));
  return to;
}
