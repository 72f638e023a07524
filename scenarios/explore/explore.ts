import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { AtRiskMessages, submittedIds } from '../../conformance/checkers/crash-states.js';
import { CHECKERS } from '../../conformance/checkers/evaluate.js';
import { KitError, messageOf } from '../../conformance/errors.js';
import { HISTORY_FORMAT, type HistoryEvent } from '../../conformance/history/events.js';
import { Recorder } from '../../conformance/history/recorder.js';
import { markOf } from '../../conformance/protocols/message.js';
import { protocolOf } from '../../conformance/protocols/registry/registry.js';
import { expandCommand } from '../../conformance/target-file/placeholders.js';
import { sectorFilterOf } from '../../faults/crash-states/file-bytes.js';
import { Fingerprints } from '../../faults/crash-states/fingerprint.js';
import { applyWrites, openRecording, type Recording } from '../../faults/crash-states/materialise.js';
import { recordingDirectory } from '../../faults/power/blocklog-availability.js';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import { copySparse } from '../../faults/power/mounts.js';
import { processPendingEvents } from '../../faults/waiting.js';
import { formatState } from '../../faults/write-log/state.js';
import { seeded } from '../host/random.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import { kitVersion } from '../host/version.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';
import { restoreTimeouts } from './inspectors/inspection.js';
import type { WorkerPlan } from './inspectors/worker.js';
import { WorkerPool } from './inspectors/worker-pool.js';
import { type RecordedRun, recordRun } from './record/record.js';
import { saveRecording } from './record/saved-recording.js';
import { explainLoss } from './result/explain-loss.js';
import { describeState } from './result/missing-writes.js';
import type { ExploreResult, SmallestState } from './result/result.js';
import { writeStateBundle } from './result/state-bundle.js';
import { StateWorkspace } from './states/workspace.js';
import {
  type Exploration,
  type ExploreOptions,
  makeMountPlan,
  workerCount,
} from './strategies/exploration.js';
import { exploreRecoveries, NO_RECOVERIES, type Recoveries } from './strategies/recoveries.js';
import { type CrashStateSource, runOnTarget } from './strategies/run-on-target.js';
import { type Broken, type StrategyName, StrategyRun } from './strategies/strategy-run.js';

/** Of the time that is left after the recording. */
const TIME_SHARES: Readonly<Record<StrategyName | 'recoveries', number>> = {
  image: 0.5,
  mount: 0.3,
  recoveries: 0.2,
  target: 0.7,
};
/** So long the target is loaded, at most and as a part of the budget. */
const MAX_LOAD_MS = 4000;
const LOAD_TIME_SHARE = 0.15;
const RESERVE_MS = 1500;
const BATCH_SIZE: Readonly<Record<'image' | 'mount', number>> = { image: 32, mount: 4 };
const MAX_REPORTED_VIOLATIONS = 10;
/** A torn superblock is rare: where more than this part of the disks is refused something else is wrong. */
const MAX_UNMOUNTABLE_SHARE = 0.2;

/**
 * Records one run of the target under load, and then makes, recovers and judges the disks that a power cut could have
 * left at any moment of it. Its history has an event for each state, which PP-13's checker judges again.
 * @throws KitError target-unavailable when the target does not start, kit-failed when a disk cannot be made.
 */
export async function runExplore(requested: ExploreOptions): Promise<ExploreResult> {
  const { target, seed } = requested;
  const registry = new Registry(newRunId());
  const dir = requested.out ?? join(stateDirectory(), 'runs', registry.runId);
  if (requested.out === undefined) registry.made({ kind: 'directory', path: dir });
  mkdirSync(dir, { recursive: true });
  const recorder = new Recorder(join(dir, 'history.jsonl'));
  const options = { ...requested, signal: AbortSignal.any([requested.signal, recorder.failureSignal]) };
  const startMs = performance.now();
  let keep = true;
  let run: RecordedRun | undefined;
  try {
    run = options.savedRecording?.run ?? (await record(options, registry, recorder, dir));
    for (const event of options.savedRecording?.events ?? []) recorder.importEvent(event);
    const result = await explore(options, { registry, recorder, dir, run, startMs });
    keep = options.keep || options.out !== undefined || result.verdict === 'fail';
    if (keep) saveRecording(run, target, seed, dir);
    // The history must be whole in the file that goes into the bundle.
    recorder.close();
    const bundle =
      result.verdict === 'fail' && !options.signal.aborted
        ? await writeStateBundle({
            target,
            seed,
            run,
            result,
            evidence: dir,
            events: recorder.events,
          })
        : null;
    return { ...result, evidence: keep ? dir : null, bundle };
  } catch (error) {
    // A Ctrl-C may be what it failed of: then nothing is kept.
    await processPendingEvents();
    throw error;
  } finally {
    run?.remove();
    if (!keep || options.signal.aborted) rmSync(dir, { recursive: true, force: true });
    registry.close();
    recorder.close();
  }
}

async function record(
  { target, seed, budgetMs, runtime, filesystem, signal }: ExploreOptions,
  registry: Registry,
  recorder: Recorder,
  dir: string,
): Promise<RecordedRun> {
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
  return recordRun({
    target,
    protocol: await protocolOf(target.protocol),
    runtime,
    registry,
    recorder,
    dir,
    signal,
    filesystem: filesystem ?? DEFAULT_FILESYSTEM,
    seed,
    loadMs: Math.min(MAX_LOAD_MS, budgetMs * LOAD_TIME_SHARE),
  });
}

interface ExplorationContext {
  registry: Registry;
  recorder: Recorder;
  dir: string;
  run: RecordedRun;
  startMs: number;
}

async function explore(
  options: ExploreOptions,
  context: ExplorationContext,
): Promise<Omit<ExploreResult, 'evidence' | 'bundle'>> {
  const { registry, recorder, run, startMs } = context;
  const { target, budgetMs, runtime, progress } = options;
  const recording = openRecording(run.log, run.end);
  const imagesParentDir = recordingDirectory() ?? context.dir;
  const workspace = new StateWorkspace(join(imagesParentDir, `plugpull-${registry.runId}-states`), registry);
  const pool = new WorkerPool(registry.runId);
  try {
    const ids = submittedIds(recorder.events);
    const baseAt = recording.model.durablePrefix(run.from);
    const base = makeBase(run, recording, baseAt, join(workspace.dir, 'base.img'));
    const restore = target.crashStates?.restore;
    const exploration: Exploration = {
      options,
      ...context,
      recording,
      workspace,
      pool,
      atRisk: new AtRiskMessages(recorder.events),
      base,
      baseAt,
      ids,
      digests: ids.map((id) => run.digests.get(id) ?? id),
      restore:
        restore && expandCommand(restore, { ...runtime.pathsFor(), data: '', sink: '', ports: new Map() }),
      workers: availableParallelism(),
      endMs: startMs + budgetMs - RESERVE_MS,
    };
    const entries = recording.model.entries.length;
    const subject = options.savedRecording === undefined ? 'recorded' : 'the recording has';
    progress(`${subject} ${entries} requests to the disk, ${entries - run.from} of them under load`);
    const strategyRuns = await runStrategies(exploration);
    const anyBroken = [...strategyRuns.values()].some((strategyRun) => strategyRun.broken.length > 0);
    // Once something is found, recoveries that are cut would only show it in a longer story.
    const recoveries = anyBroken ? NO_RECOVERIES : await exploreRecoveries(exploration);
    const compared = compareStrategies(exploration, strategyRuns);
    const inconclusiveReason = whyInconclusive(strategyRuns, recoveries, compared);
    recordAtRisk(exploration, inconclusiveReason);
    recorder.record({ kind: 'run-ended', how: options.signal.aborted ? 'interrupted' : 'completed' });
    const broken = [
      ...[...strategyRuns.values()].flatMap((strategyRun) => strategyRun.broken),
      ...recoveries.broken,
    ];
    return resultOf(exploration, { strategyRuns, recoveries, broken, compared, inconclusiveReason, startMs });
  } finally {
    await pool.end();
    workspace.remove();
    recording.close();
  }
}

/** In the words of the other faults: the machine crashed, and so much was at stake in the worst of its states. */
function recordAtRisk(
  { recorder, atRisk: stakes, recording }: Exploration,
  inconclusiveReason: string | undefined,
): void {
  const end = recording.model.entries.length;
  let maxAtRisk = 0;
  for (let prefix = 0; prefix <= end; prefix++) {
    maxAtRisk = Math.max(maxAtRisk, stakes.idsOf(stakes.required({ prefix, entriesBegun: prefix })).length);
  }
  recorder.record({
    kind: 'at-risk',
    injection: 1,
    confirmedUndelivered: maxAtRisk,
    inFlight: 0,
    inDelivery: 0,
  });
  recorder.record({
    kind: 'fault',
    fault: 'crash-states',
    injection: 1,
    hit: maxAtRisk > 0 && inconclusiveReason === undefined,
    scope: 'machine',
    services: [],
    detail: inconclusiveReason ?? `the disks that a cut could have left at any of ${end} requests`,
    indexDamaged: false,
    rotted: [],
    failingMs: 0,
  });
}

function makeBase(run: RecordedRun, { log, model }: Recording, baseAt: number, path: string): string {
  copySparse(run.image, path);
  const fd = openSync(path, 'r+');
  applyWrites(log, model.writes(0, baseAt), fd);
  closeSync(fd);
  return path;
}

async function runStrategies(exploration: Exploration): Promise<Map<StrategyName, StrategyRun>> {
  const { options, run, restore, endMs } = exploration;
  const names: StrategyName[] = [];
  if (restore === undefined) names.push('target');
  else {
    if (run.files.size > 0) names.push('image');
    names.push('mount');
  }
  const leftMs = Math.max(0, endMs - performance.now());
  const strategyRuns = new Map<StrategyName, StrategyRun>();
  for (const strategy of names) {
    if (options.signal.aborted) break;
    const share = names.length === 1 ? 1 - TIME_SHARES.recoveries : TIME_SHARES[strategy];
    const strategyEndMs = Math.min(endMs, performance.now() + leftMs * share);
    const strategyRun = new StrategyRun({
      strategy,
      model: exploration.recording.model,
      from: run.from,
      fingerprints: fingerprintsOf(exploration, strategy),
      random: seeded(options.seed).fork(`states-${strategy}`),
      atRisk: exploration.atRisk,
      recorder: exploration.recorder,
      maxDistinct: Math.ceil((options.maxStates ?? Number.POSITIVE_INFINITY) * share),
      endMs: strategyEndMs,
      signal: options.signal,
      progress: options.progress,
    });
    strategyRuns.set(strategy, strategyRun);
    if (strategy === 'target') await runOnTarget(exploration, strategyRun, sourceOf(exploration));
    else {
      const plans = workerPlans(exploration, strategy, strategyEndMs);
      await exploration.pool.run(plans, strategyRun.jobs(), BATCH_SIZE[strategy], () =>
        strategyRun.shouldStop(),
      );
    }
    strategyRun.end();
    const restoreFailure = strategyRun.whyRestoreNeverWorked();
    if (restoreFailure !== undefined)
      throw new KitError('bad-target', `${restoreFailure}, on every crash state`);
    if (strategyRun.broken.length > 0) break;
  }
  return strategyRuns;
}

function sourceOf({ recording, base, baseAt, atRisk: stakes }: Exploration): CrashStateSource {
  const required: CrashStateSource['required'] = ({ prefix }) =>
    stakes.idsOf(stakes.required({ prefix, entriesBegun: prefix + 1 }));
  return { name: 'lane', recording, base, baseAt, required };
}

function fingerprintsOf({ recording, base, baseAt, run }: Exploration, strategy: StrategyName): Fingerprints {
  const counts = strategy === 'image' ? sectorFilterOf([...run.files.values()]) : undefined;
  return new Fingerprints(recording, base, baseAt, counts);
}

/** What the workers are told, each with a place of its own. */
function workerPlans(exploration: Exploration, strategy: 'image' | 'mount', endMs: number): WorkerPlan[] {
  const { run, workspace: places, base, baseAt, restore, registry, digests, recording } = exploration;
  return Array.from({ length: workerCount(exploration, strategy) }, (_, number) => ({
    log: run.log,
    end: recording.model.entries.length,
    base,
    baseAt,
    restore: restore ?? [],
    env: { [RUN_VARIABLE]: registry.runId },
    ...restoreTimeouts(exploration.options.target, endMs),
    digests,
    strategy:
      strategy === 'image'
        ? {
            name: 'image' as const,
            files: [...run.files].map(([name, file]) => ({
              name,
              ...file,
              // Not where the images are: nothing need ever write these bytes back.
              path: join(places.root, `${number}.${name}`),
            })),
            patches: join(places.root, `${number}.patches`),
          }
        : makeMountPlan(exploration, `mount-${number}`, base),
  }));
}

/** All that an exploration has come to. */
interface ExplorationOutcome {
  strategyRuns: StrategyRuns;
  recoveries: Recoveries;
  broken: readonly Broken[];
  compared: ExploreResult['compared'];
  inconclusiveReason: string | undefined;
  startMs: number;
}

function resultOf(
  exploration: Exploration,
  {
    strategyRuns: ways,
    recoveries,
    broken,
    compared,
    inconclusiveReason: doubt,
    startMs,
  }: ExplorationOutcome,
): Omit<ExploreResult, 'evidence' | 'bundle'> {
  const { options, recorder, recording, run } = exploration;
  const finding = CHECKERS['PP-13'](recorder.events, options.target.guarantee);
  const timedOut = timedOutIn(ways, recoveries);
  const { verdict, why } =
    finding.verdict === 'pass' && doubt !== undefined
      ? { verdict: 'not-measured' as const, why: doubt }
      : finding;
  const figuresByStrategy = [...ways].map(
    ([name, strategyRun]) => [name, strategyRun.figures(workerCount(exploration, name))] as const,
  );
  const distinct = figuresByStrategy.reduce(
    (sum, [, figures]) => sum + figures.distinct,
    recoveries.distinct,
  );
  const seconds = figuresByStrategy.reduce((sum, [, figures]) => sum + figures.seconds, recoveries.seconds);
  const unmountable = unmountableIn(ways, recoveries);
  const count = (test: (event: HistoryEvent) => boolean) => recorder.events.filter(test).length;
  return {
    target: options.target.name,
    verdict,
    why,
    requirements: [{ id: finding.requirement, verdict, why }],
    states: finding.figures.crashStates ?? 0,
    distinct,
    statesPerSecond: seconds === 0 ? 0 : Math.round((distinct / seconds) * 10) / 10,
    lost: finding.figures.lostInStates ?? 0,
    broken: finding.figures.brokenStates ?? 0,
    atRisk: finding.figures.statesAtRisk ?? 0,
    ways: Object.fromEntries(figuresByStrategy),
    unanswered: { states: timedOut.length, first: timedOut[0]?.state ?? null },
    unmountable: { states: unmountable.length, first: unmountable[0] ?? null },
    recoveries: { cut: recoveries.cut, states: recoveries.states, distinct: recoveries.distinct },
    compared,
    submitted: count((event) => event.kind === 'submitted'),
    confirmed: count((event) => event.kind === 'answered' && event.outcome === 'confirmed'),
    log: { entries: recording.model.entries.length, from: run.from },
    seed: options.seed,
    tookMs: Math.round(performance.now() - startMs),
    replay: options.replay(options.seed),
    violations: finding.violations
      .slice(0, MAX_REPORTED_VIOLATIONS)
      .map((violation) => ({ requirement: finding.requirement, ...violation })),
    smallest: smallestOf(exploration, broken),
  };
}

type StrategyRuns = ReadonlyMap<StrategyName, StrategyRun>;

const timedOutIn = (strategyRuns: StrategyRuns, recoveries: Recoveries) => [
  ...[...strategyRuns.values()].flatMap((strategyRun) => strategyRun.timedOut),
  ...recoveries.timedOut,
];
const unmountableIn = (strategyRuns: StrategyRuns, recoveries: Recoveries) => [
  ...[...strategyRuns.values()].flatMap((strategyRun) => strategyRun.unmountable),
  ...recoveries.unmountable,
];

/** Why an exploration that found nothing wrong shows nothing all the same; undefined when it does. */
function whyInconclusive(
  strategyRuns: StrategyRuns,
  recoveries: Recoveries,
  { differ, first }: ExploreResult['compared'],
): string | undefined {
  const hung = timedOutIn(strategyRuns, recoveries).find((state) => state.hung);
  if (hung !== undefined)
    return `crashStates.restore had no answer in crash state ${hung.state} when the time was up`;
  if (differ > 0)
    return `${differ} crash states hold other messages mounted than straight in the image; the first is ${first}`;
  const unmountable = unmountableIn(strategyRuns, recoveries);
  const inspectedCount = [...strategyRuns.values()].reduce(
    (sum, strategyRun) => sum + strategyRun.figures(1).distinct,
    recoveries.distinct,
  );
  const [one] = unmountable;
  if (one !== undefined && unmountable.length > MAX_UNMOUNTABLE_SHARE * (inspectedCount + unmountable.length))
    return `${unmountable.length} of ${inspectedCount + unmountable.length} disks could not be mounted; the first is ${one.state}: ${one.why}`;
  return undefined;
}

/** The states that were looked at in both ways must have been found to hold the same. */
function compareStrategies(exploration: Exploration, strategyRuns: StrategyRuns): ExploreResult['compared'] {
  const [image, mount] = [strategyRuns.get('image'), strategyRuns.get('mount')];
  const compared: ExploreResult['compared'] = { states: 0, differ: 0, first: null };
  if (image === undefined || mount === undefined) return compared;
  const fingerprints = fingerprintsOf(exploration, 'image');
  for (const { crash, inspection: found } of mount.inspected) {
    const fromImage = image.inspectionOf(fingerprints.of(crash));
    if (fromImage === undefined || !found.recovered) continue;
    compared.states += 1;
    if (fromImage.heldBits === found.heldBits) continue;
    compared.differ += 1;
    compared.first ??= formatState(crash);
  }
  return compared;
}

function smallestOf(exploration: Exploration, broken: readonly Broken[]): SmallestState | null {
  const [first] = [...broken].sort(
    (a, b) =>
      Number(a.address.includes('>')) - Number(b.address.includes('>')) ||
      a.namedWrites - b.namedWrites ||
      a.state.prefix - b.state.prefix,
  );
  if (first === undefined) return null;
  const { recording, atRisk: stakes, recorder, run, dir } = exploration;
  const [id] = first.missing;
  const submitted = recorder.events.find((event) => event.kind === 'submitted' && event.id === id);
  const confirmedAt = id === undefined ? undefined : stakes.confirmedAtEntry(id);
  const story = [`the power is cut at ${first.address}`];
  if (first.recoveryFailure !== '') story.push(`the target does not recover: ${first.recoveryFailure}`);
  const recovery = first.recovery ?? null;
  if (recovery !== null) {
    // What stands in the log of the run was on the disk: the recovery has lost it.
    const [outer, inner] = first.address.split('>');
    story.push(`at ${outer}, and in the recovery from there again, at ${inner} of its own requests`);
    const recoveryRecording = openRecording(join(dir, recovery.log), recovery.end);
    story.push(describeState(recoveryRecording.model, first.state));
    recoveryRecording.close();
    if (id !== undefined) story.push(`message ${id}: gone after the second`);
  } else if (id !== undefined && submitted?.kind === 'submitted' && confirmedAt !== undefined) {
    const mark = markOf(run.id, id);
    try {
      story.push(
        ...explainLoss(recording, mark, submitted.sizeBytes, confirmedAt).map(
          (line) => `message ${id}: ${line}`,
        ),
      );
    } catch (error) {
      throw new KitError('kit-failed', `the log cannot be read again: ${messageOf(error)}`, { cause: error });
    }
  }
  return { state: first.address, recovery, missing: first.missing, story };
}
