import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Evaluation, evaluate } from '../../conformance/checkers/evaluate.js';
import { KitError } from '../../conformance/errors.js';
import { HISTORY_FORMAT, type HistoryEvent } from '../../conformance/history/events.js';
import { Recorder } from '../../conformance/history/recorder.js';
import { recordReceipts } from '../../conformance/protocols/receipts.js';
import { protocolOf } from '../../conformance/protocols/registry/registry.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { FAULTS } from '../../faults/catalogue/catalogue.js';
import type { Fault } from '../../faults/fault.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { DEFAULT_FILESYSTEM, type Filesystem } from '../../faults/power/filesystem.js';
import type { FileHabit } from '../../faults/tracing/file-habits.js';
import { processPendingEvents } from '../../faults/waiting.js';
import type { GateCase } from '../bundle/manifest.js';
import { attempt } from '../host/attempt.js';
import { PhaseClock } from '../host/phase-clock.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import { removeOrReport } from '../host/removal.js';
import { kitVersion } from '../host/version.js';
import { Pace } from '../round/pace.js';
import type { RoundPhase } from '../round/phases.js';
import { type RoundOptions, runRound } from '../round/round.js';
import { saveData } from '../round/saved-data.js';
import { makeSchedule, type Schedule, splitByPower } from '../round/schedule.js';
import { traceFiles } from '../round/trace-files.js';
import { faultsEnabledBy, type PowerBackendName } from '../runtime/power-backends.js';
import type { PreparedRuntime } from '../runtime/runtime.js';
import { explainLosses } from './explain-losses.js';
import { writeGateBundle } from './gate-bundle.js';
import { withMeasurableClaims } from './measurable-claims.js';
import { type GateResult, resultOf } from './result.js';
import { type Selection, selectFaults } from './select-faults.js';

export interface GateOptions {
  target: Target;
  runtime: PreparedRuntime;
  /** Runtime of the rounds of power cuts, with the dm-flakey of its kernel. Default: `runtime`. */
  powerRuntime?: PreparedRuntime | undefined;
  selection: Selection;
  /** Backend that cuts the power of this machine's disks. */
  power: PowerBackendName;
  /** Filesystem of the disk whose power is cut; default: ext4 without mount options. */
  filesystem?: Filesystem;
  seed: number;
  budgetMs: number;
  /** Number of rounds after which the gate stops; undefined: the budget alone decides. */
  maxRounds?: number;
  /** The gate stops after this many injections; undefined: the budget alone decides. */
  maxInjections?: number;
  /**
   * Number of kinds of faults in each round. Default: a number that keeps rounds short and lets the rounds of
   * the budget try all kinds.
   */
  faultsPerRound?: number;
  /** What earlier gates of the same target have shown about its durations. Default: nothing is known. */
  pace?: Pace;
  /**
   * Directory of the evidence. Undefined: a directory in the state directory, which is removed when
   * everything passed.
   */
  out: string | undefined;
  /** True saves the evidence even if everything passed. */
  keep: boolean;
  /** Returns the command line that runs the gate again, given the seed of the round that failed. */
  replay(seed: number): string;
  signal: AbortSignal;
  progress(line: string): void;
}

/** Usual duration of a round of many faults. It decides only how many faults a round has. */
const TYPICAL_ROUND_MS = 22_000;
const MAX_FAULTS_PER_ROUND = 5;
/** Share of the budget that power cuts get when there are also rounds of other faults. */
const POWER_BUDGET_SHARE = 0.45;
/** Upper bound of a round of power cuts, so that its verdict need not wait for the end of the budget. */
const MAX_POWER_ROUND_MS = 30_000;
/**
 * Upper bound of a round of power cuts on a slow runtime, where the install alone takes a large part of 30 s.
 */
const MAX_SLOW_POWER_ROUND_MS = 300_000;
/**
 * Smallest remaining part of the power cuts' share of the budget with which another round of power cuts
 * starts.
 */
const MIN_POWER_MS = 6000;
/**
 * Time that the drain, the stop and the evaluation of a round are assumed to take until a round has shown it. No
 * fault is injected in this time at the end of the budget.
 */
const TYPICAL_TAIL_MS = 2500;
/** The same on a slow runtime. */
const SLOW_TAIL_MS = 20_000;
/** Upper bound of the time that is planned for the end of a round, as a share of the budget. */
const MAX_TAIL_SHARE = 0.4;
/** Shortest time for injections that makes another round worth its set-up. */
const MIN_INJECTIONS_MS = 2000;
/** Requirements about the content of messages. A violation says nothing about durability, so the gate goes on. */
const CONTENT_REQUIREMENTS: ReadonlySet<string> = new Set(['PP-4', 'PP-5']);
/** Name of the bundle in the evidence directory. */
const BUNDLE_NAME = 'bundle.tar.gz';

/**
 * Runs rounds of workload and faults until the budget is used up, `maxRounds` rounds or `maxInjections` injections are done, or a
 * requirement has failed. If only the content of messages was wrong (PP-4, PP-5), it goes on until every fault was tried.
 * The seeds of the rounds are ascending numbers that begin with `seed`, so that a gate with the seed of a failed round runs
 * that round first.
 * @throws KitError target-unavailable when the target cannot be started, or when no fault is available.
 */
export async function runGate(requested: GateOptions): Promise<GateResult> {
  const { selection, seed } = requested;
  const target = [requested.powerRuntime ?? requested.runtime, requested.runtime].reduce(
    withMeasurableClaims,
    requested.target,
  );
  if (selection.faults.length === 0) {
    const reasons = selection.unavailable
      .map(({ name, availability }) => `${name}: ${availability.why} (${availability.remedy})`)
      .join('; ');
    throw new KitError('target-unavailable', `no fault can be tried: ${reasons}`);
  }
  const registry = new Registry(newRunId(), stateDirectory(), requested.out);
  const dir = requested.out ?? join(stateDirectory(), 'runs', registry.runId);
  if (requested.out === undefined) registry.made({ kind: 'directory', path: dir });
  mkdirSync(dir, { recursive: true });
  const recorder = new Recorder(join(dir, 'history.jsonl'));
  const options = {
    ...requested,
    target,
    signal: AbortSignal.any([requested.signal, recorder.failureSignal]),
  };
  const startMs = performance.now();
  const clock = new PhaseClock<RoundPhase>('evaluation', requested.budgetMs);
  recorder.record({
    kind: 'run-started',
    format: HISTORY_FORMAT,
    target: target.name,
    protocol: target.protocol,
    seed,
    faults: selection.faults.map(({ name }) => name),
    startedAt: new Date().toISOString(),
    kitVersion: kitVersion(),
  });
  let keep = true;
  try {
    const { rounds, failed, writtenOutside, escaped } = await runRounds(options, {
      ...{ registry, recorder, dir, startMs, clock },
    });
    const how = options.signal.aborted ? 'interrupted' : failed ? 'violation' : 'completed';
    recorder.record({ kind: 'run-ended', how });
    const evaluation = evaluate(recorder.events, target);
    keep = options.keep || options.out !== undefined || evaluation.verdict === 'fail';
    const isFailed = evaluation.verdict === 'fail';
    const reportedSeed = isFailed && failed !== undefined ? failed.schedule.seed : seed;
    const habits =
      isFailed && how !== 'interrupted' && explainLosses(recorder.events, evaluation, []).length > 0
        ? ((await attempt('no trace of the lost files', () =>
            learnHabits(options, registry, reportedSeed, dir),
          )) ?? [])
        : [];
    // Close the file first: the bundle must contain the whole history. A violation that is proven stays one when the end
    // of the history cannot be written.
    if (isFailed) await attempt('the history is not complete', () => recorder.close());
    else recorder.close();
    const bundle =
      isFailed && failed !== undefined && how !== 'interrupted'
        ? ((await attempt('the bundle could not be written', () =>
            writeGateBundle(
              {
                target,
                ...failed,
                filesystem: options.filesystem ?? DEFAULT_FILESYSTEM,
                evidence: dir,
                events: recorder.events,
                evaluation,
                habits,
              },
              join(dir, BUNDLE_NAME),
            ),
          )) ?? null)
        : null;
    return resultOf(
      {
        target,
        selection,
        runtime: options.runtime.name,
        powerRuntime: options.powerRuntime?.name,
        claimsDropped: target !== requested.target,
        power: options.power,
        events: recorder.events,
        rounds,
        time: clock.report(),
        writtenOutside,
        escaped,
        seed: reportedSeed,
        replay: options.replay(reportedSeed),
        evidence: keep ? dir : null,
        bundle,
        habits,
      },
      evaluation,
    );
  } catch (error) {
    // A Ctrl-C may be the cause of the error. Let its handler run first, so that `finally` removes the
    // evidence.
    await processPendingEvents();
    throw error;
  } finally {
    if (!keep || options.signal.aborted) await removeOrReport(() => removeTree(dir), options.progress);
    registry.close();
    recorder.close();
  }
}

/** Runs the target once under strace to learn which service writes which files, and saves the result as evidence. */
async function learnHabits(
  { target, runtime, signal, progress }: GateOptions,
  registry: Registry,
  seed: number,
  dir: string,
): Promise<FileHabit[]> {
  progress('the target runs once more under strace, to see which service writes and syncs the lost files');
  const habits = await traceFiles({ target, runtime, registry, seed, dir: join(dir, 'trace'), signal });
  writeFileSync(join(dir, 'file-habits.json'), `${JSON.stringify(habits, undefined, 2)}\n`);
  return habits;
}

/**
 * Redelivery time, in seconds, above which a target is assumed to keep its leases over a crash. A shorter claim is
 * usually an upper bound that the target does not need.
 */
const LONG_REDELIVERY_S = 15;

/**
 * Returns the time that the drain, the stop and the evaluation of the first round are assumed to take. A target with
 * long leases may need its whole redelivery time to offer again what was in delivery at the last fault.
 */
export function firstTailMs(target: Target, runtime: PreparedRuntime): number {
  if (runtime.slowStartMs !== undefined) return SLOW_TAIL_MS;
  const { redeliverySeconds = 0 } = target.guarantee;
  return redeliverySeconds > LONG_REDELIVERY_S ? redeliverySeconds * 1000 : TYPICAL_TAIL_MS;
}

function hasUntriedFaults(faults: readonly Fault[], events: readonly HistoryEvent[]): boolean {
  const tried = new Set(events.flatMap((event) => (event.kind === 'fault' ? [event.fault] : [])));
  return faults.some(({ name }) => !tried.has(name));
}

/**
 * Lists the faults of a round in their order. Power cuts are named once, because the clock decides their
 * number.
 */
function describePlan({ disk, injections }: Schedule, power: PowerBackendName): string {
  if (disk === 'power') return `power cuts by ${power}`;
  return injections.map(({ fault }) => fault).join(', ');
}

/** The round that failed, and where it ran: a replay runs it there again. */
type FailedRoundFacts = Pick<GateCase, 'round' | 'runtime' | 'power'> & { schedule: Schedule };

/** Returns the part of a line of progress that says where a round runs, when not all rounds run in the same place. */
function whereOf({ runtime }: Lane, { powerRuntime }: GateOptions): string {
  if (powerRuntime === undefined) return '';
  return runtime.name === 'vm' ? ' (containers in the lab VM)' : ' (containers on this machine)';
}

interface GateRun {
  registry: Registry;
  recorder: Recorder;
  dir: string;
  startMs: number;
  clock: PhaseClock<RoundPhase>;
}

/** Where the rounds of one kind of faults run, and what they have shown about its durations. */
interface Lane {
  runtime: PreparedRuntime;
  power: PowerBackendName;
  pace: Pace;
  /** Duration of the set-up of the latest round; before the first round, what it is assumed to take. */
  setUpMs: number;
}

/** Time that the set-up of the first round is assumed to take on a slow runtime. */
const SLOW_SET_UP_MS = 20_000;

/** Makes the lanes of power cuts and of the other faults. They are the same one unless power cuts have a runtime. */
function makeLanes({ target, runtime, powerRuntime, power, pace }: GateOptions): {
  power: Lane;
  others: Lane;
} {
  const lane = (own: PreparedRuntime, backend: PowerBackendName): Lane => ({
    runtime: own,
    power: backend,
    pace: pace ?? new Pace(firstTailMs(target, own)),
    setUpMs: 0,
  });
  if (powerRuntime === undefined) {
    const both = lane(runtime, power);
    return { power: both, others: both };
  }
  // The other rounds are on this machine, whose kernel need not have the backend.
  const ofPower = { ...lane(powerRuntime, power), pace: new Pace(firstTailMs(target, powerRuntime)) };
  if (powerRuntime.slowStartMs !== undefined) ofPower.setUpMs = SLOW_SET_UP_MS;
  return { power: ofPower, others: lane(runtime, 'blocklog') };
}

type Lanes = ReturnType<typeof makeLanes>;

/**
 * Returns the time at the end of the budget that the first round of power cuts needs. In an emulated lab VM a single cut
 * takes many seconds, so the round gets the whole share of power cuts there.
 */
function reservedForPowerMs({ power }: Lanes, tailMs: (lane: Lane) => number): number {
  if (power.runtime.slowStartMs !== undefined) return Number.POSITIVE_INFINITY;
  return power.setUpMs + MIN_POWER_MS + tailMs(power);
}

interface LaneChoice {
  isPowerUntried: boolean;
  areOthersUntried: boolean;
  leftMs: number;
  /** Time that the first round of power cuts needs. */
  reservedMs: number;
  tailMs(lane: Lane): number;
}

/**
 * Chooses the lane of the next round when power cuts have a runtime of their own; undefined: any. A round in an emulated
 * lab VM may take much longer than planned. So it comes when every other fault was tried, or when only the time that it
 * needs is left.
 */
function nextLane({ power, others }: Lanes, choice: LaneChoice): Lane | undefined {
  const { isPowerUntried, areOthersUntried, leftMs, reservedMs, tailMs } = choice;
  const forPowerMs = isPowerUntried ? reservedMs : 0;
  const isRoom = leftMs >= others.setUpMs + MIN_INJECTIONS_MS + tailMs(others) + forPowerMs;
  if (areOthersUntried && isRoom) return others;
  return isPowerUntried ? power : undefined;
}

async function runRounds(options: GateOptions, run: GateRun) {
  const { target, selection, seed, budgetMs, signal } = options;
  const { faults } = selection;
  const receipts = recordReceipts(run.recorder);
  const endMs = run.startMs + budgetMs;
  const { power, others } = splitByPower(faults);
  const powerMs = power.length === 0 ? 0 : others.length === 0 ? budgetMs : budgetMs * POWER_BUDGET_SHARE;
  const lanes = makeLanes(options);
  const powerRoundMs =
    lanes.power.runtime.slowStartMs === undefined ? MAX_POWER_ROUND_MS : MAX_SLOW_POWER_ROUND_MS;
  // A target with long drains must still get faults, in every round and in every level of a certificate.
  const plannedTailMs = ({ pace }: Lane) => Math.min(pace.tailMs, budgetMs * MAX_TAIL_SHARE);
  let powerLeftMs = powerMs;
  const maxRounds = options.maxRounds ?? Number.POSITIVE_INFINITY;
  const maxInjections = options.maxInjections ?? Number.POSITIVE_INFINITY;
  const plannedRounds = Math.min(maxRounds, Math.max(1, Math.floor((budgetMs - powerMs) / TYPICAL_ROUND_MS)));
  const faultsPerRound =
    options.faultsPerRound ?? Math.min(MAX_FAULTS_PER_ROUND, Math.ceil(others.length / plannedRounds));
  let injections = 0;
  let rounds = 0;
  let failed: FailedRoundFacts | undefined;
  const writtenOutside = new Set<string>();
  const escaped = new Set<string>();
  let isOver = false;
  for (let offset = 0; !signal.aborted && !isOver; offset++) {
    if (rounds >= maxRounds || injections >= maxInjections) break;
    const nowMs = performance.now();
    const number = rounds + 1;
    const schedule = makeSchedule(seed + offset, faults, faultsPerRound);
    const isPowerRound = schedule.disk === 'power';
    const lane = isPowerRound ? lanes.power : lanes.others;
    const { setUpMs } = lane;
    if (isPowerRound && others.length > 0 && powerLeftMs < MIN_POWER_MS) continue;
    // A second round of power cuts waits until every other fault has been tried.
    if (isPowerRound && powerLeftMs < powerMs && hasUntriedFaults(others, run.recorder.events)) continue;
    const isPowerUntried = powerMs >= MIN_POWER_MS && powerLeftMs === powerMs;
    // The first seed is the one that the user asked for, perhaps that of a failed round.
    if (offset > 0 && lanes.power !== lanes.others) {
      const wanted = nextLane(lanes, {
        ...{ isPowerUntried, leftMs: endMs - nowMs, tailMs: plannedTailMs },
        reservedMs: Math.min(powerLeftMs, reservedForPowerMs(lanes, plannedTailMs)),
        areOthersUntried: hasUntriedFaults(others, run.recorder.events),
      });
      if (wanted !== undefined && wanted !== lane) continue;
    }
    // The first round of power cuts needs time at the end of the budget.
    const forPowerMs =
      isPowerUntried && !isPowerRound ? Math.min(powerLeftMs, reservedForPowerMs(lanes, plannedTailMs)) : 0;
    const injectionsMs = isPowerRound && !isPowerUntried ? MIN_POWER_MS : MIN_INJECTIONS_MS;
    if (rounds > 0 && nowMs + setUpMs + injectionsMs + plannedTailMs(lane) + forPowerMs > endMs) {
      // The next schedule may be one of power cuts, which were not tried yet.
      if (forPowerMs > 0 && nowMs + setUpMs + MIN_INJECTIONS_MS + plannedTailMs(lane) <= endMs) continue;
      break;
    }
    options.progress(
      `round ${number}, seed ${schedule.seed}: ${describePlan(schedule, lane.power)}${whereOf(lane, options)}`,
    );
    const round: RoundOptions = {
      target,
      protocol: await protocolOf(target.protocol),
      runtime: lane.runtime,
      schedule,
      faults: new Map(faults.map((fault) => [fault.name, fault])),
      power: lane.power,
      filesystem: options.filesystem ?? DEFAULT_FILESYSTEM,
      dir: join(run.dir, `round-${number}`),
      number,
      recorder: run.recorder,
      receipts,
      injectionsBefore: injections,
      registry: run.registry,
      signal,
      // A later round may start more slowly than the earlier ones. If its start timed out, their results
      // would be lost.
      startTimeoutMs: Math.round(
        Math.max(1000, 3 * setUpMs, Math.min(lane.runtime.slowStartMs ?? 30_000, endMs - nowMs)),
      ),
      lastFaultMs:
        Math.min(endMs, isPowerRound ? nowMs + Math.min(powerLeftMs, powerRoundMs) : endMs - forPowerMs) -
        plannedTailMs(lane),
      clock: run.clock,
      pace: lane.pace,
      lastInjection: maxInjections,
      progress: options.progress,
    };
    const outcome = await runRound(round);
    injections = outcome.injections;
    for (const file of outcome.writtenOutside) writtenOutside.add(file);
    for (const command of outcome.escaped) escaped.add(command);
    lane.setUpMs = setUpMsOf(run.recorder.events);
    rounds = number;
    if (isPowerRound) powerLeftMs -= performance.now() - nowMs;
    const evaluation = evaluate(run.recorder.events, target);
    const failure = signal.aborted ? 'none' : failureOf(evaluation);
    // Go on after a changed message until durability was measured under every fault.
    isOver =
      failure === 'other' ||
      (failure === 'content' && isLossMeasured(evaluation) && !hasUntriedFaults(faults, run.recorder.events));
    const isFailedRound = failure === 'other' || (failure === 'content' && failed === undefined);
    if (isFailedRound) failed = { round: number, schedule, runtime: lane.runtime.name, power: lane.power };
    // Save only the data of a failed round: it is evidence, and the data of a round that passed has no use.
    await removeOrReport(
      () => (isFailedRound ? saveData(outcome.disk, join(round.dir, 'data-at-end')) : outcome.disk.remove()),
      options.progress,
    );
    if (failure === 'none' && !options.keep && options.out === undefined)
      await removeOrReport(() => removeTree(round.dir), options.progress);
    lane.pace.noteTail(performance.now() - outcome.faultsEndedMs);
  }
  return { rounds, failed, writtenOutside: [...writtenOutside], escaped: [...escaped] };
}

/** Returns what failed: nothing, only the content of messages, or something else. */
function failureOf({ findings }: Evaluation): 'none' | 'content' | 'other' {
  const failed = findings.filter(({ verdict }) => verdict === 'fail');
  if (failed.length === 0) return 'none';
  return failed.every(({ requirement }) => CONTENT_REQUIREMENTS.has(requirement)) ? 'content' : 'other';
}

/** Returns true if the run has shown whether confirmed messages are lost. */
function isLossMeasured({ findings }: Evaluation): boolean {
  return findings.some(({ requirement, verdict }) => requirement === 'PP-1' && verdict !== 'not-measured');
}

/**
 * Returns the milliseconds from the last installation of a history to the first message after it; 0 when one
 * of the two is missing.
 */
export function setUpMsOf(events: readonly HistoryEvent[]): number {
  const from = events.findLastIndex(({ kind }) => kind === 'installed');
  const installed = events[from];
  const submitted = events.slice(from + 1).find(({ kind }) => kind === 'submitted');
  if (installed === undefined || submitted === undefined) return 0;
  return submitted.atMs - installed.atMs;
}

/** Options of a gate that selects its faults itself: those that the target claims, limited to `wanted`. */
type UnselectedGateOptions = Omit<GateOptions, 'selection'> & { wanted: readonly string[] | undefined };

/** Selects the faults, runs the gate, and closes its runtimes. */
export async function selectAndRunGate({ wanted, ...options }: UnselectedGateOptions): Promise<GateResult> {
  const { target, runtime, powerRuntime, power } = options;
  try {
    const laneOf = ({ needs }: Fault) => (needs.disk === 'power' && powerRuntime) || runtime;
    const selection = await selectFaults(target, wanted, {
      supports: (fault) => laneOf(fault).supports(fault),
      enabledFaults:
        powerRuntime === undefined ? (runtime.enabledFaults ?? faultsEnabledBy(power)) : POWER_FAULTS,
    });
    return await runGate({ ...options, selection });
  } finally {
    await powerRuntime?.close?.();
    await runtime.close?.();
  }
}

/** Names of the faults that a separate runtime of power cuts makes possible. */
const POWER_FAULTS: ReadonlySet<string> = new Set(
  FAULTS.filter(({ needs }) => needs.disk === 'power').map(({ name }) => name),
);
