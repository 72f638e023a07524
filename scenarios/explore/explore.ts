import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { AtRiskMessages, submittedIds } from '../../conformance/checkers/crash-states.js';
import { CHECKERS } from '../../conformance/checkers/evaluate.js';
import { KitError, messageOf } from '../../conformance/errors.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { describeLostFile } from '../../conformance/history/lost-files.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import { markOf } from '../../conformance/protocols/message.js';
import { protocolOf } from '../../conformance/protocols/registry/registry.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { expandCommand } from '../../conformance/target-file/placeholders.js';
import { Fingerprints } from '../../faults/crash-states/fingerprint.js';
import { openRecording } from '../../faults/crash-states/materialise.js';
import { StateDisk } from '../../faults/crash-states/state-disk.js';
import { recordingDirectory } from '../../faults/power/blocklog-availability.js';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import { describeHabit } from '../../faults/tracing/file-habits.js';
import type { CrashState } from '../../faults/write-log/state.js';
import { type CrashStateFacts, writeRunFacts } from '../bundle/run-facts.js';
import { attempt } from '../host/attempt.js';
import { PhaseClock } from '../host/phase-clock.js';
import { seeded } from '../host/random.js';
import type { Registry } from '../host/registry.js';
import { escapeWarnings } from '../round/escape-warnings.js';
import { traceFiles } from '../round/trace-files.js';
import { DATA_DIR } from '../runtime/disks/local-disk.js';
import { exploreCluster } from './cluster/explore-cluster.js';
import { type ExplorationFrame, recordStart, runInFrame } from './exploration-frame.js';
import { tryMount } from './inspectors/inspection.js';
import { WorkerPool } from './inspectors/worker-pool.js';
import { type FileList, filesIn, lostSince, type SeenLoss, undoneRenames } from './record/file-samples.js';
import { type RecordedRun, recordRun } from './record/record.js';
import { saveRecording } from './record/saved-recording.js';
import { explainLoss, type LossExplanation } from './result/explain-loss.js';
import { factsOf } from './result/kept-facts.js';
import { EXPLORED_MINIMUM, whyTooFew } from './result/minimum.js';
import { describeState } from './result/missing-writes.js';
import type { ExploreResult, SmallestState, UnfinishedResult } from './result/result.js';
import { writeStateBundle } from './result/state-bundle.js';
import { type LostInState, stateCause } from './result/state-cause.js';
import { makeBase } from './states/base-image.js';
import { StateWorkspace } from './states/workspace.js';
import { ownersOf } from './states/write-owners.js';
import { type Exploration, type ExploreOptions, workerCount } from './strategies/exploration.js';
import { exploreRecoveries, NO_RECOVERIES, type Recoveries } from './strategies/recoveries.js';
import { runOnMounts } from './strategies/run-on-mounts.js';
import { type CrashStateSource, runOnTarget } from './strategies/run-on-target.js';
import { type Broken, type StrategyName, StrategyRun } from './strategies/strategy-run.js';

/**
 * Share of the time after the recording that is for the crash states of the run. The rest is for recoveries
 * that are cut.
 */
const RUN_TIME_SHARE = 0.8;
/** Upper bound of the load phase, in milliseconds. */
const MAX_LOAD_MS = 4000;
/** Upper bound of the load phase, as a share of the budget. */
const LOAD_TIME_SHARE = 0.15;
/** Time at the end of the budget for the verdict, the evidence and the clean-up, in milliseconds. */
const RESERVE_MS = 1500;
const MAX_REPORTED_VIOLATIONS = 10;
/**
 * Upper bound for the share of disks that the kernel refuses to mount. A torn superblock is rare, so a larger
 * share has another cause, and the exploration counts as not measured.
 */
const MAX_UNMOUNTABLE_SHARE = 0.2;

/**
 * Records one run of the target under load. Then makes the disks that a power cut could have left at any
 * moment of that run, lets the target recover on each, and judges what the target holds. The checker of PP-13
 * gives the verdict from the history alone: the history contains every judged state, and equivalent states as
 * one event with their number.
 * @throws KitError target-unavailable when the target does not start, bad-target when its restore program
 *   never works, kit-failed when a disk cannot be made.
 */
export async function runExplore(requested: ExploreOptions): Promise<ExploreResult> {
  if (requested.target.nodes !== undefined) return exploreCluster(requested);
  const { target, seed } = requested;
  const startMs = performance.now();
  const clock = new PhaseClock<ExplorePhase>('evaluation', requested.budgetMs);
  let run: RecordedRun | undefined;
  return runInFrame(requested, () => clock.report(), {
    async explore(frame) {
      const { options, registry, recorder, dir } = frame;
      const recorded = options.savedRecording?.run ?? (await clock.during('recording', () => record(frame)));
      run = recorded;
      for (const event of options.savedRecording?.events ?? []) recorder.importEvent(event);
      const outcome = await explore(options, { registry, recorder, dir, run: recorded, startMs, clock });
      const traced = await attempt('no trace of the lost files', () =>
        withHabits(options, registry, dir, outcome),
      );
      return { ...(traced ?? outcome), run: recorded };
    },
    async save({ result, facts, run: recorded }, dir) {
      await attempt('the recording is not kept', () => saveRecording(recorded, target, seed, dir));
      await attempt('the facts of the run are not kept', () => keepFacts(dir, target, result, clock, facts));
    },
    bundle: ({ result, run: recorded }, { dir, recorder: { events } }) =>
      writeStateBundle({ target, seed, run: recorded, result, evidence: dir, events }),
    release: () => run?.remove(),
  });
}

/** The result of an exploration, before a traced run has shown how the target treats the lost files. */
interface ExplorationResult {
  result: UnfinishedResult;
  /** Files that the smallest broken state has lost, and where the target was seen to have them. */
  lost: readonly SeenLoss[];
  /** The first message that it has lost; undefined when it has lost none, or in the cut of a recovery. */
  lostMessage: LostInState | undefined;
  facts: CrashStateFacts;
}

/** Upper bound of the files of a crash state that the story lists. */
const MAX_LISTED_FILES = 6;
/** Upper bound for the files that a warning names. */
const MAX_WARNED_FILES = 3;
/** Upper bound of the lost files that the story names. */
const MAX_NAMED_FILES = 4;

/**
 * Adds to the story the files that the smallest broken state has lost. A run of the target under strace shows which
 * services write, sync and rename them.
 */
async function withHabits(
  { target, runtime, seed, signal, progress }: ExploreOptions,
  registry: Registry,
  dir: string,
  outcome: ExplorationResult,
): Promise<Pick<ExplorationResult, 'result' | 'facts'>> {
  const { result, lost, lostMessage, facts } = outcome;
  const { smallest } = result;
  if (smallest === null || signal.aborted || (lost.length === 0 && lostMessage === undefined)) return outcome;
  progress('the target runs once more under strace, to see which service writes and syncs the lost files');
  const habits = await traceFiles({ target, runtime, registry, seed, dir: join(dir, 'trace'), signal });
  const lines = lost.slice(0, MAX_NAMED_FILES).map(({ lost: file, seenAt, certain }) => {
    const seen = `as the target saw it when ${seenAt} requests were complete`;
    const doubt = certain ? '' : ' (it may have removed the file itself)';
    const habit = describeHabit(habits, file.file);
    return [`${describeLostFile(file)}, ${seen}${doubt}`, habit].filter((part) => part !== '').join('; ');
  });
  const cause = lostMessage === undefined ? undefined : stateCause(lostMessage, habits);
  const causeLines =
    cause === undefined
      ? []
      : [`cause: ${cause.sentence}`, ...(cause.fix === '' ? [] : [`to fix it: ${cause.fix}`])];
  const story = [...smallest.story, ...lines, ...causeLines];
  return {
    result: { ...result, smallest: { ...smallest, story } },
    facts: cause === undefined ? facts : { ...facts, cause: { ...cause, story } },
  };
}

/** Writes what a report needs to know, and what the history does not say, into the evidence. */
function keepFacts(
  dir: string,
  target: Target,
  { seed, verdict, why, replay, warnings }: UnfinishedResult,
  clock: PhaseClock<ExplorePhase>,
  crashStates: CrashStateFacts,
): void {
  writeRunFacts(dir, {
    ...{ command: 'explore', target, seed, verdict, replay, warnings, crashStates },
    why: `PP-13: ${why}`,
    tookMs: clock.report().tookMs,
    notTried: [],
    power: '',
  });
}

/** Starts the history and records the target's run under load. */
async function record(frame: ExplorationFrame): Promise<RecordedRun> {
  const { registry, recorder, dir, options } = frame;
  const { target, seed, budgetMs, runtime, filesystem, signal, progress } = options;
  recordStart(frame);
  return recordRun({
    target,
    protocol: await protocolOf(target.protocol),
    runtime,
    registry,
    recorder,
    dir,
    signal,
    onFailedStart: progress,
    filesystem: filesystem ?? DEFAULT_FILESYSTEM,
    seed,
    loadMs: Math.min(MAX_LOAD_MS, budgetMs * LOAD_TIME_SHARE),
  });
}

/** The parts of a run that exist before its exploration begins. */
interface ExplorationContext {
  registry: Registry;
  recorder: Recorder;
  dir: string;
  run: RecordedRun;
  startMs: number;
  clock: PhaseClock<ExplorePhase>;
}

/**
 * Phases of an exploration; see `PhaseClock`. `recording` is the run under load, `states` its crash states, and
 * `recoveries` are the recoveries that are recorded and cut in turn.
 */
type ExplorePhase = 'recording' | 'states' | 'recoveries' | 'evaluation';

async function explore(options: ExploreOptions, context: ExplorationContext): Promise<ExplorationResult> {
  const { registry, recorder, run, startMs, clock } = context;
  const { target, budgetMs, runtime, progress } = options;
  const recording = openRecording(run.log, run.end);
  const imagesParentDir = recordingDirectory() ?? context.dir;
  const workspace = new StateWorkspace(join(imagesParentDir, `plugpull-${registry.runId}-states`), registry);
  const pool = new WorkerPool(registry.runId);
  try {
    const ids = submittedIds(recorder.events);
    const baseAt = recording.model.durablePrefix(run.from);
    const base = makeBase(run.image, recording, baseAt, join(workspace.dir, 'base.img'));
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
        restore &&
        expandCommand(restore, {
          ...runtime.pathsFor(),
          data: '',
          scratch: run.scratch,
          sink: '',
          ports: new Map(),
        }),
      workers: availableParallelism(),
      endMs: startMs + budgetMs - RESERVE_MS,
    };
    const entries = recording.model.entries.length;
    const subject = options.savedRecording === undefined ? 'recorded' : 'the recording has';
    progress(`${subject} ${entries} requests to the disk, ${entries - run.from} of them under load`);
    const strategy: StrategyName = restore === undefined ? 'target' : 'mount';
    const strategyRun = await clock.during('states', () => runStrategy(exploration, strategy));
    // If a state of the run is broken, a cut recovery would show the same bug by a longer story.
    const recoveries =
      strategyRun.broken.length > 0 || isStoredElsewhere(run)
        ? NO_RECOVERIES
        : await clock.during('recoveries', () => exploreRecoveries(exploration));
    const inconclusiveReason = whyInconclusive(exploration, strategyRun, recoveries);
    recordAtRisk(exploration, inconclusiveReason);
    recorder.record({ kind: 'run-ended', how: options.signal.aborted ? 'interrupted' : 'completed' });
    return resultOf(exploration, { strategy, strategyRun, recoveries, inconclusiveReason });
  } finally {
    await pool.end();
    workspace.remove();
    recording.close();
  }
}

/**
 * Records the crash in the form of the other faults: as one crash of the machine, with the largest number of
 * messages that were at risk in any of its states.
 */
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

/**
 * Explores the crash states of the run.
 * @throws KitError bad-target when the restore program ended by itself on every state.
 */
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
    maxDistinct: options.maxStates ?? Number.POSITIVE_INFINITY,
    endMs,
    signal: options.signal,
    progress: options.progress,
  });
  const source = sourceOf(exploration);
  if (!options.signal.aborted && !isStoredElsewhere(run)) {
    if (strategy === 'target') await runOnTarget(exploration, strategyRun, source);
    else await runOnMounts({ ...exploration, endMs }, strategyRun, source, run.log);
  }
  strategyRun.end();
  const restoreFailure = strategyRun.whyRestoreNeverWorked();
  if (restoreFailure !== undefined)
    throw new KitError('bad-target', `${restoreFailure}, on every crash state`);
  return strategyRun;
}

/**
 * Reports whether the messages are in files that are not on the recorded disk. No crash state can then lose one of
 * them, and a start on a crash state would use the same files as the other starts.
 */
function isStoredElsewhere({ unwritten }: RecordedRun): boolean {
  return unwritten?.writesElsewhere === true;
}

/** Describes the recorded disk of the run, and which messages each of its crash states must hold. */
function sourceOf({ recording, base, baseAt, atRisk }: Exploration): CrashStateSource {
  const required: CrashStateSource['required'] = ({ prefix }) =>
    atRisk.idsOf(atRisk.required({ prefix, entriesBegun: prefix + 1 }));
  return { name: 'slot', recording, base, baseAt, required };
}

/** The outcome of an exploration: what `resultOf` makes the result from. */
interface ExplorationOutcome {
  strategy: StrategyName;
  strategyRun: StrategyRun;
  recoveries: Recoveries;
  inconclusiveReason: string | undefined;
}

function resultOf(
  exploration: Exploration,
  { strategy, strategyRun, recoveries, inconclusiveReason }: ExplorationOutcome,
): ExplorationResult {
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
  const smallest = smallestOf(exploration, [...strategyRun.broken, ...recoveries.broken]);
  const result = {
    target: options.target.name,
    verdict,
    why,
    requirements: [{ id: finding.requirement, verdict, why }],
    warnings: warningsOf(options.target, run),
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
    explored: {
      cuts: figures.cuts.judged,
      allCuts: figures.cuts.all,
      share: figures.cuts.judged / figures.cuts.all,
      minimum: EXPLORED_MINIMUM,
    },
    seed: options.seed,
    replay: options.replay(options.seed),
    violations: finding.violations
      .slice(0, MAX_REPORTED_VIOLATIONS)
      .map((violation) => ({ requirement: finding.requirement, ...violation })),
    smallest: smallest?.described ?? null,
  };
  return {
    result,
    lost: smallest?.lost ?? [],
    lostMessage: smallest?.lostMessage,
    facts: factsOf(recording.model, run.from, simplestFirst(strategyRun.broken), (entries) =>
      ownersIfMountable(exploration, entries),
    ),
  };
}

/**
 * Warns of files that are not on the recorded disk: no crash state shows what becomes of the messages in them. Also warns
 * of processes that had escaped from their services.
 */
export function warningsOf(
  { name }: Pick<Target, 'name'>,
  { writtenOutside = [], escaped = [] }: Pick<RecordedRun, 'writtenOutside' | 'escaped'>,
): string[] {
  const escapes = escapeWarnings(name, escaped);
  if (writtenOutside.length === 0) return escapes;
  const more = writtenOutside.length - MAX_WARNED_FILES;
  const files = `${writtenOutside.slice(0, MAX_WARNED_FILES).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
  return [`${name} writes ${files} outside {data}: no crash state shows what is stored there`, ...escapes];
}

/** Lists the largest files with their sizes, as one phrase. */
function listSizes(sizes: Readonly<Record<string, number>>): string {
  const files = Object.entries(sizes).sort(([, one], [, other]) => other - one);
  const named = files.slice(0, MAX_LISTED_FILES).map(([file, size]) => `${file} (${size} bytes)`);
  const more = files.length > named.length ? ` and ${files.length - named.length} more` : '';
  return files.length === 0 ? 'none' : `${named.join(', ')}${more}`;
}

/** Finds the files to which writes belong; none when the disk cannot be mounted. */
function ownersIfMountable(
  exploration: Exploration,
  entries: readonly number[],
): ReadonlyMap<number, string> {
  try {
    const { filesystem } = exploration.run;
    return ownersOf({ ...exploration, filesystem }, entries, exploration.workspace);
  } catch {
    return new Map();
  }
}

/**
 * Returns the files of a crash state of the run; undefined when its disk cannot be made, mounted or read. They are for
 * the story only: a damaged filesystem must not turn a proven failure into an error.
 */
export function filesOf(
  {
    recording,
    base,
    baseAt,
    run,
    workspace,
  }: Pick<Exploration, 'recording' | 'base' | 'baseAt' | 'run' | 'workspace'>,
  state: CrashState,
): FileList | undefined {
  try {
    const slot = workspace.makeSlot('smallest', base);
    const disk = new StateDisk({ recording, base, baseAt, filesystem: run.filesystem, ...slot });
    try {
      return tryMount(disk, state) === undefined ? filesIn(join(slot.mountPoint, DATA_DIR)) : undefined;
    } finally {
      disk.close();
    }
  } catch {
    return undefined;
  }
}

/**
 * Returns the reason why an exploration without a violation proves nothing; undefined when it does prove
 * something.
 */
function whyInconclusive(
  { run, options }: Exploration,
  strategyRun: StrategyRun,
  recoveries: Recoveries,
): string | undefined {
  if (run.unwritten !== undefined) return run.unwritten.why;
  const hung = [...strategyRun.timedOut, ...recoveries.timedOut].find((state) => state.hung);
  if (hung !== undefined)
    return `crashStates.restore had no answer in crash state ${hung.state} when the time was up`;
  const unmountable = [...strategyRun.unmountable, ...recoveries.unmountable];
  const triedCount = strategyRun.figures(1).distinct + recoveries.distinct + unmountable.length;
  const [one] = unmountable;
  if (one !== undefined && unmountable.length > MAX_UNMOUNTABLE_SHARE * triedCount)
    return `${unmountable.length} of ${triedCount} disks could not be mounted; the first is ${one.state}: ${one.why}`;
  // States that a broken one has ended are enough: a failure needs only one.
  if (strategyRun.broken.length > 0 || recoveries.broken.length > 0) return undefined;
  const figures = strategyRun.figures(1);
  const hasCountLimit = figures.distinct >= (options.maxStates ?? Number.POSITIVE_INFINITY);
  return whyTooFew(figures, hasCountLimit ? 'use a larger --states' : 'use a larger --budget');
}

/**
 * Chooses the broken state that is easiest to understand, and explains it: a state of the run before one of a
 * recovery, then the one with the fewest named writes, then the one with the earliest cut.
 * @throws KitError kit-failed when the log cannot be read again.
 */
function smallestOf(
  exploration: Exploration,
  broken: readonly Broken[],
): (Pick<ExplorationResult, 'lost' | 'lostMessage'> & { described: SmallestState }) | undefined {
  const [first] = simplestFirst(broken);
  if (first === undefined) return undefined;
  const { recording, atRisk, recorder, run, dir } = exploration;
  const [id] = first.missing;
  const submitted = recorder.events.find((event) => event.kind === 'submitted' && event.id === id);
  const confirmedAt = id === undefined ? undefined : atRisk.confirmedAtEntry(id);
  const story = [`the power is cut at ${first.address}`];
  /** Files to which the first missing message was written. */
  const files: string[] = [];
  let lossExplained: LossExplanation | undefined;
  if (first.recoveryFailure !== '') story.push(`the target does not recover: ${first.recoveryFailure}`);
  const recovery = first.recovery ?? null;
  if (recovery !== null) {
    // The message was on the disk at the first cut. The recovery has lost it, so the log of the run cannot
    // explain the loss.
    const [outer, inner] = first.address.split('>');
    story.push(`at ${outer}, and in the recovery from there again, at ${inner} of its own requests`);
    const recoveryRecording = openRecording(join(dir, recovery.log), recovery.end);
    story.push(describeState(recoveryRecording.model, first.state));
    recoveryRecording.close();
    if (id !== undefined) story.push(`message ${id}: gone after the second`);
  } else if (id !== undefined && submitted?.kind === 'submitted' && confirmedAt !== undefined) {
    const mark = markOf(run.id, id);
    const owners = (entries: readonly number[]) => ownersIfMountable(exploration, entries);
    try {
      const explained = explainLoss(recording, mark, submitted.sizeBytes, confirmedAt, owners);
      story.push(...explained.lines.map((line) => `message ${id}: ${line}`));
      files.push(...explained.files);
      lossExplained = explained;
    } catch (error) {
      throw new KitError('kit-failed', `the log cannot be read again: ${messageOf(error)}`, { cause: error });
    }
  }
  const found = recovery === null ? filesOf(exploration, first.state) : undefined;
  const sizes = found?.sizes;
  const lost = sizes === undefined ? [] : lostSince(run.samples, sizes, first.state.prefix);
  for (const file of files.filter((name) => sizes !== undefined && !Object.hasOwn(sizes, name)))
    story.push(
      `${file} is not on this disk: the target had removed it, so the message must be in another file`,
    );
  if (sizes !== undefined) story.push(`the files on this disk: ${listSizes(sizes)}`);
  const lostMessage =
    lossExplained === undefined || id === undefined || confirmedAt === undefined
      ? undefined
      : {
          ...{ address: first.address, prefix: first.state.prefix, message: id, confirmedAt, lost },
          explained: lossExplained,
          renames: found === undefined ? [] : undoneRenames(run.samples, found, first.state.prefix),
          names: Object.keys(sizes ?? {}),
        };
  return { described: { state: first.address, recovery, missing: first.missing, story }, lost, lostMessage };
}

/**
 * Sorts broken states by how easy they are to understand: states of the run before those of a recovery, then those with
 * few named writes, then those with an early cut.
 */
function simplestFirst(broken: readonly Broken[]): Broken[] {
  return [...broken].sort(
    (a, b) =>
      Number(a.address.includes('>')) - Number(b.address.includes('>')) ||
      a.namedWrites - b.namedWrites ||
      a.state.prefix - b.state.prefix,
  );
}
