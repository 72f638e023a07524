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
import { Fingerprints } from '../../faults/crash-states/fingerprint.js';
import { applyWrites, openRecording, type Recording } from '../../faults/crash-states/materialise.js';
import { recordingDirectory } from '../../faults/power/blocklog-availability.js';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import { copySparse } from '../../faults/power/mounts.js';
import { processPendingEvents } from '../../faults/waiting.js';
import { seeded } from '../host/random.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import { kitVersion } from '../host/version.js';
import { WorkerPool } from './inspectors/worker-pool.js';
import { type RecordedRun, recordRun } from './record/record.js';
import { saveRecording } from './record/saved-recording.js';
import { explainLoss } from './result/explain-loss.js';
import { describeState } from './result/missing-writes.js';
import type { ExploreResult, SmallestState } from './result/result.js';
import { writeStateBundle } from './result/state-bundle.js';
import { StateWorkspace } from './states/workspace.js';
import { type Exploration, type ExploreOptions, workerCount } from './strategies/exploration.js';
import { exploreRecoveries, NO_RECOVERIES, type Recoveries } from './strategies/recoveries.js';
import { runOnMounts } from './strategies/run-on-mounts.js';
import { type CrashStateSource, runOnTarget } from './strategies/run-on-target.js';
import { type Broken, type StrategyName, StrategyRun } from './strategies/strategy-run.js';

/** Share of the run's own crash states in the time after the recording; the rest is for recoveries that are cut. */
const RUN_TIME_SHARE = 0.8;
/** So long the target is loaded, at most and as a part of the budget. */
const MAX_LOAD_MS = 4000;
const LOAD_TIME_SHARE = 0.15;
const RESERVE_MS = 1500;
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
    const strategy: StrategyName = restore === undefined ? 'target' : 'mount';
    const strategyRun = await runStrategy(exploration, strategy);
    // Once something is found, recoveries that are cut would only show it in a longer story.
    const recoveries = strategyRun.broken.length > 0 ? NO_RECOVERIES : await exploreRecoveries(exploration);
    const inconclusiveReason = whyInconclusive(strategyRun, recoveries);
    recordAtRisk(exploration, inconclusiveReason);
    recorder.record({ kind: 'run-ended', how: options.signal.aborted ? 'interrupted' : 'completed' });
    return resultOf(exploration, { strategy, strategyRun, recoveries, inconclusiveReason, startMs });
  } finally {
    await pool.end();
    workspace.remove();
    recording.close();
  }
}

/** In the words of the other faults: the machine crashed, and so much was at stake in the worst of its states. */
function recordAtRisk(
  { recorder, atRisk, recording }: Exploration,
  inconclusiveReason: string | undefined,
): void {
  const end = recording.model.entries.length;
  let maxAtRisk = 0;
  for (let prefix = 0; prefix <= end; prefix++) {
    maxAtRisk = Math.max(maxAtRisk, atRisk.idsOf(atRisk.required({ prefix, entriesBegun: prefix })).length);
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

async function runStrategy(exploration: Exploration, strategy: StrategyName): Promise<StrategyRun> {
  const { options, recording, base, baseAt, run } = exploration;
  const leftMs = Math.max(0, exploration.endMs - performance.now());
  const endMs = performance.now() + leftMs * RUN_TIME_SHARE;
  const strategyRun = new StrategyRun({
    strategy,
    model: recording.model,
    from: run.from,
    fingerprints: new Fingerprints(recording, base, baseAt),
    random: seeded(options.seed).fork(`states-${strategy}`),
    atRisk: exploration.atRisk,
    recorder: exploration.recorder,
    maxDistinct: Math.ceil((options.maxStates ?? Number.POSITIVE_INFINITY) * RUN_TIME_SHARE),
    endMs,
    signal: options.signal,
    progress: options.progress,
  });
  const source = sourceOf(exploration);
  if (!options.signal.aborted) {
    if (strategy === 'target') await runOnTarget(exploration, strategyRun, source);
    else await runOnMounts({ ...exploration, endMs }, strategyRun, source, run.log);
  }
  strategyRun.end();
  const restoreFailure = strategyRun.whyRestoreNeverWorked();
  if (restoreFailure !== undefined)
    throw new KitError('bad-target', `${restoreFailure}, on every crash state`);
  return strategyRun;
}

function sourceOf({ recording, base, baseAt, atRisk }: Exploration): CrashStateSource {
  const required: CrashStateSource['required'] = ({ prefix }) =>
    atRisk.idsOf(atRisk.required({ prefix, entriesBegun: prefix + 1 }));
  return { name: 'slot', recording, base, baseAt, required };
}

/** All that an exploration has come to. */
interface ExplorationOutcome {
  strategy: StrategyName;
  strategyRun: StrategyRun;
  recoveries: Recoveries;
  inconclusiveReason: string | undefined;
  startMs: number;
}

function resultOf(
  exploration: Exploration,
  { strategy, strategyRun, recoveries, inconclusiveReason, startMs }: ExplorationOutcome,
): Omit<ExploreResult, 'evidence' | 'bundle'> {
  const { options, recorder, recording, run } = exploration;
  const finding = CHECKERS['PP-13'](recorder.events, options.target.guarantee);
  const { verdict, why } =
    finding.verdict === 'pass' && inconclusiveReason !== undefined
      ? { verdict: 'not-measured' as const, why: inconclusiveReason }
      : finding;
  const figures = strategyRun.figures(workerCount(exploration, strategy));
  const distinct = figures.distinct + recoveries.distinct;
  const seconds = figures.seconds + recoveries.seconds;
  const timedOut = [...strategyRun.timedOut, ...recoveries.timedOut];
  const unmountable = [...strategyRun.unmountable, ...recoveries.unmountable];
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
    strategies: { [strategy]: figures },
    timedOut: { states: timedOut.length, first: timedOut[0]?.state ?? null },
    unmountable: { states: unmountable.length, first: unmountable[0] ?? null },
    recoveries: {
      recorded: recoveries.recorded,
      states: recoveries.states,
      distinct: recoveries.distinct,
    },
    submitted: count((event) => event.kind === 'submitted'),
    confirmed: count((event) => event.kind === 'answered' && event.outcome === 'confirmed'),
    log: { entries: recording.model.entries.length, from: run.from },
    seed: options.seed,
    tookMs: Math.round(performance.now() - startMs),
    replay: options.replay(options.seed),
    violations: finding.violations
      .slice(0, MAX_REPORTED_VIOLATIONS)
      .map((violation) => ({ requirement: finding.requirement, ...violation })),
    smallest: smallestOf(exploration, [...strategyRun.broken, ...recoveries.broken]),
  };
}

/** Why an exploration that found nothing wrong shows nothing all the same; undefined when it does. */
function whyInconclusive(strategyRun: StrategyRun, recoveries: Recoveries): string | undefined {
  const hung = [...strategyRun.timedOut, ...recoveries.timedOut].find((state) => state.hung);
  if (hung !== undefined)
    return `crashStates.restore had no answer in crash state ${hung.state} when the time was up`;
  const unmountable = [...strategyRun.unmountable, ...recoveries.unmountable];
  const triedCount = strategyRun.figures(1).distinct + recoveries.distinct + unmountable.length;
  const [one] = unmountable;
  if (one !== undefined && unmountable.length > MAX_UNMOUNTABLE_SHARE * triedCount)
    return `${unmountable.length} of ${triedCount} disks could not be mounted; the first is ${one.state}: ${one.why}`;
  return undefined;
}

function smallestOf(exploration: Exploration, broken: readonly Broken[]): SmallestState | null {
  const [first] = [...broken].sort(
    (a, b) =>
      Number(a.address.includes('>')) - Number(b.address.includes('>')) ||
      a.namedWrites - b.namedWrites ||
      a.state.prefix - b.state.prefix,
  );
  if (first === undefined) return null;
  const { recording, atRisk, recorder, run, dir } = exploration;
  const [id] = first.missing;
  const submitted = recorder.events.find((event) => event.kind === 'submitted' && event.id === id);
  const confirmedAt = id === undefined ? undefined : atRisk.confirmedAtEntry(id);
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
