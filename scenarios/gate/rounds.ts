import { join } from 'node:path';
import { type Evaluation, evaluate } from '../../conformance/checkers/evaluate.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import { recordReceipts } from '../../conformance/protocols/receipts.js';
import { protocolOf } from '../../conformance/protocols/registry/registry.js';
import type { Target } from '../../conformance/target-file/definition.js';
import type { Fault } from '../../faults/fault.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import { SyncSites } from '../../faults/tracing/sync-sites.js';
import type { GateCase } from '../bundle/manifest.js';
import type { PhaseClock } from '../host/phase-clock.js';
import type { Registry } from '../host/registry.js';
import { removeOrReport } from '../host/removal.js';
import type { RoundPhase } from '../round/phases.js';
import { type RoundOptions, runRound } from '../round/round.js';
import { saveData } from '../round/saved-data.js';
import { makeSchedule, type Schedule, splitByPower } from '../round/schedule.js';
import type { PowerBackendName } from '../runtime/power-backends.js';
import type { GateOptions } from './gate-options.js';
import {
  furtherPowerMs,
  leastPowerRoundMs,
  MIN_INJECTIONS_MS,
  MIN_POWER_MS,
  makePlaces,
  nextPlace,
  type Place,
  placeText,
  reservedForPowerMs,
} from './places.js';
import { MAX_FUTILE_CATCH_UPS, unmetFaults } from './unmet-faults.js';

/** Usual duration of a round of many faults. It decides only how many faults a round has. */
const TYPICAL_ROUND_MS = 22_000;
/** The same for a cluster, whose faults wait for elections and promotions. */
const TYPICAL_CLUSTER_ROUND_MS = 45_000;
const MAX_FAULTS_PER_ROUND = 6;
/** Time for the first start of a target, in ms. */
const FIRST_START_MS = 30_000;
/** Share of the budget that power cuts get when there are also rounds of other faults. */
const POWER_BUDGET_SHARE = 0.45;
/** The same share if an exploration follows: the exploration tries the disks of many more power cuts. */
const POWER_SHARE_BEFORE_EXPLORATION = 0.35;
/** Share of the budget that is left for an exploration once every fault has hit and every requirement is measured. */
const EXPLORATION_SHARE_WHEN_ALL_MET = 1 / 3;
/** Upper bound of a round of power cuts, so that its verdict need not wait for the end of the budget. */
const MAX_POWER_ROUND_MS = 30_000;
/** Upper bound of a round of power cuts while another fault has not been tried. */
const MAX_EARLY_POWER_ROUND_MS = 15_000;
/**
 * Upper bound of a round of power cuts on a slow runtime, where the install alone takes a large part of 30 s.
 */
const MAX_SLOW_POWER_ROUND_MS = 300_000;
/** Upper bound of the time that is planned for the end of a round, as a share of the budget. */
const MAX_TAIL_SHARE = 0.4;
/** Requirements about the content of messages. A violation says nothing about durability, so the gate goes on. */
const CONTENT_REQUIREMENTS: ReadonlySet<string> = new Set(['PP-4', 'PP-5']);

/** Returns the names of the faults that have not been injected. */
function untriedFaults(faults: readonly Fault[], events: readonly HistoryEvent[]): Set<string> {
  const tried = new Set(events.flatMap((event) => (event.kind === 'fault' ? [event.fault] : [])));
  return new Set(faults.flatMap(({ name }) => (tried.has(name) ? [] : [name])));
}

/**
 * Lists the faults of a round in their order. Power cuts are named once, because the clock decides their
 * number.
 */
function describePlan({ disk, injections }: Schedule, power: PowerBackendName): string {
  if (disk === 'power') return `power cuts by ${power}`;
  return injections.map(({ fault }) => fault).join(', ');
}

/** The parts of a gate that exist before its first round. */
export interface GateRun {
  /** Gets what the drain of a round waits for; see `RoundOptions`. */
  waiting?: (state: string | undefined) => void;
  registry: Registry;
  recorder: Recorder;
  dir: string;
  startMs: number;
  clock: PhaseClock<RoundPhase>;
  /** Number of milliseconds after `startMs` at which the rounds must be over. */
  budgetMs: number;
}

/** A round that violated a requirement, and where it ran: a replay runs it there again. */
export interface FailedRoundPlan extends Pick<GateCase, 'round' | 'runtime' | 'power'> {
  schedule: Schedule;
  /** The only faults of the round, if they were not all faults of the gate. */
  only: readonly string[] | undefined;
}

/** What the rounds of a gate have shown, besides the history. */
export interface RoundsOutcome {
  rounds: number;
  failed: FailedRoundPlan | undefined;
  /** Files outside `{data}` that the target was seen to write. */
  writtenOutside: string[];
  /** Command lines of processes that had escaped from their services. */
  escaped: string[];
}

/**
 * Runs the rounds of a gate. First every fault gets its turn. Then catch-up rounds try only the faults that have not hit
 * or whose requirement is not measured. Further turns of all faults use the rest of the budget.
 */
export async function runRounds(options: GateOptions, run: GateRun): Promise<RoundsOutcome> {
  const { target, selection, seed, signal } = options;
  const { budgetMs, recorder } = run;
  const { faults } = selection;
  const receipts = recordReceipts(recorder);
  const { power, others } = splitByPower(faults);
  const powerShare = options.exploration === undefined ? POWER_BUDGET_SHARE : POWER_SHARE_BEFORE_EXPLORATION;
  const powerMs = power.length === 0 ? 0 : others.length === 0 ? budgetMs : budgetMs * powerShare;
  const places = makePlaces(options);
  const hasSlowCuts = places.power.runtime.slowStartMs !== undefined;
  const powerRoundMs = hasSlowCuts
    ? MAX_SLOW_POWER_ROUND_MS
    : MAX_POWER_ROUND_MS + furtherPowerMs(power.length);
  const earlyPowerRoundMs = hasSlowCuts
    ? powerRoundMs
    : MAX_EARLY_POWER_ROUND_MS + furtherPowerMs(power.length);
  // A target with long drains must still get faults, in every round and in every level of a certificate.
  const plannedTailMs = ({ pace }: Place) => Math.min(pace.tailMs, budgetMs * MAX_TAIL_SHARE);
  let powerLeftMs = powerMs;
  const maxRounds = options.maxRounds ?? Number.POSITIVE_INFINITY;
  const maxInjections = options.maxInjections ?? Number.POSITIVE_INFINITY;
  const typicalRoundMs = target.nodes === undefined ? TYPICAL_ROUND_MS : TYPICAL_CLUSTER_ROUND_MS;
  const plannedRounds = Math.min(maxRounds, Math.max(1, Math.floor((budgetMs - powerMs) / typicalRoundMs)));
  const faultsPerRound =
    options.faultsPerRound ?? Math.min(MAX_FAULTS_PER_ROUND, Math.ceil(others.length / plannedRounds));
  let injections = 0;
  let rounds = 0;
  let failed: FailedRoundPlan | undefined;
  const syncSites = new SyncSites();
  const writtenOutside = new Set<string>();
  const escaped = new Set<string>();
  let isOver = false;
  let turnsLeft = turnsOf(others.length, faultsPerRound);
  let unmet: readonly Fault[] = faults;
  let futileCatchUps = 0;
  for (let offset = 0; !signal.aborted && !isOver; offset++) {
    if (rounds >= maxRounds || injections >= maxInjections) break;
    const nowMs = performance.now();
    const number = rounds + 1;
    const isAllMet = turnsLeft <= 0 && (unmet.length === 0 || futileCatchUps >= MAX_FUTILE_CATCH_UPS);
    // What is left is better used for crash states than for further turns.
    const endMs =
      run.startMs +
      (isAllMet && options.exploration !== undefined
        ? options.budgetMs * (1 - EXPLORATION_SHARE_WHEN_ALL_MET)
        : budgetMs);
    const isPowerUntried = powerMs >= MIN_POWER_MS && powerLeftMs === powerMs;
    // Every round of a certificate has all faults of its level.
    // On a slow machine there may be no time for the turns that are left: one round then has all their faults.
    const isLate = turnsLeft > 1 && nowMs + (turnsLeft * (nowMs - run.startMs)) / Math.max(1, rounds) > endMs;
    const catchesUp =
      options.faultsPerRound === undefined &&
      (turnsLeft <= 0 || (rounds > 0 && isLate)) &&
      !isPowerUntried &&
      unmet.length > 0 &&
      unmet.length < faults.length &&
      futileCatchUps < MAX_FUTILE_CATCH_UPS;
    const roundFaults = catchesUp ? chooseCatchUp(unmet) : faults;
    const schedule = makeSchedule(
      seed + offset,
      roundFaults,
      catchesUp ? roundFaults.length : faultsPerRound,
    );
    const isPowerRound = schedule.disk === 'power';
    const place = isPowerRound ? places.power : places.others;
    const { runtime, setUpMs } = place;
    const tailMs = plannedTailMs(place);
    const reservedMs = Math.min(powerLeftMs, reservedForPowerMs(places, plannedTailMs, power.length));
    const untried = untriedFaults(others, recorder.events);
    if (!catchesUp) {
      if (isPowerRound && others.length > 0 && powerLeftMs < MIN_POWER_MS) continue;
      // A second round of power cuts waits until every other fault has had its turn.
      if (isPowerRound && powerLeftMs < powerMs && turnsLeft > 0) continue;
      // The first seed is the one that the user asked for, perhaps that of a failed round.
      if (offset > 0 && places.power !== places.others) {
        const wanted = nextPlace(places, {
          ...{ isPowerUntried, leftMs: endMs - nowMs, reservedMs, tailMs: plannedTailMs },
          areOthersUntried: untried.size > 0,
        });
        if (wanted !== undefined && wanted !== place) continue;
      }
    }
    // The first round of power cuts needs time at the end of the budget.
    const forPowerMs = isPowerUntried && !isPowerRound ? reservedMs : 0;
    const injectionsMs = isPowerRound && !isPowerUntried ? MIN_POWER_MS : MIN_INJECTIONS_MS;
    if (rounds > 0 && nowMs + setUpMs + injectionsMs + tailMs + forPowerMs > endMs) {
      // The next schedule may be one of power cuts, which were not tried yet.
      if (forPowerMs > 0 && nowMs + setUpMs + MIN_INJECTIONS_MS + tailMs <= endMs) continue;
      break;
    }
    const planned = new Set(schedule.injections.map(({ fault }) => fault));
    const own = [...untried].filter((name) => planned.has(name)).length;
    // Faults that have not had their turn get an equal part of the time, so that none of them is left out.
    const turnMs =
      own === 0 || runtime.slowStartMs !== undefined
        ? Number.POSITIVE_INFINITY
        : ((endMs - forPowerMs - nowMs) * own) / Math.max(own, untried.size);
    const powerTurnMs =
      catchesUp && (!hasSlowCuts || powerLeftMs < leastPowerRoundMs(place, tailMs))
        ? leastPowerRoundMs(place, tailMs) + furtherPowerMs(roundFaults.length)
        : Math.min(powerLeftMs, untried.size > 0 ? earlyPowerRoundMs : powerRoundMs);
    const why = catchesUp ? ' (catch-up round: not measured yet)' : '';
    options.progress(
      `round ${number}, seed ${schedule.seed}: ${describePlan(schedule, place.power)}${placeText(place, options)}${why}`,
    );
    const round: RoundOptions = {
      target,
      protocol: await protocolOf(target.protocol),
      runtime,
      schedule,
      faults: new Map(faults.map((fault) => [fault.name, fault])),
      power: place.power,
      filesystem: options.filesystem ?? DEFAULT_FILESYSTEM,
      dir: join(run.dir, `round-${number}`),
      number,
      recorder,
      receipts,
      injectionsBefore: injections,
      syncSites,
      registry: run.registry,
      signal,
      // A later round may start more slowly than the earlier ones. If its start timed out, their results
      // would be lost.
      startTimeoutMs: Math.round(
        Math.max(1000, 3 * setUpMs, Math.min(runtime.slowStartMs ?? startLimitMs(target), endMs - nowMs)),
      ),
      lastFaultMs:
        Math.min(endMs, isPowerRound ? nowMs + powerTurnMs : Math.min(endMs - forPowerMs, nowMs + turnMs)) -
        tailMs,
      clock: run.clock,
      pace: place.pace,
      lastInjection: maxInjections,
      progress: options.progress,
      waiting: run.waiting,
    };
    const outcome = await runRound(round);
    injections = outcome.injections;
    for (const file of outcome.writtenOutside) writtenOutside.add(file);
    for (const command of outcome.escaped) escaped.add(command);
    place.setUpMs = setUpMsOf(recorder.events);
    rounds = number;
    if (isPowerRound) powerLeftMs -= performance.now() - nowMs;
    else turnsLeft = catchesUp ? 0 : turnsLeft - 1;
    const evaluation = evaluate(recorder.events, target);
    const unmetBefore = unmet.length;
    unmet = unmetFaults(faults, recorder.events, evaluation);
    if (catchesUp) futileCatchUps = unmet.length < unmetBefore ? 0 : futileCatchUps + 1;
    const failure = signal.aborted ? 'none' : failureOf(evaluation);
    // Go on after a changed message until durability was measured under every fault.
    isOver =
      failure === 'other' ||
      (failure === 'content' &&
        isLossMeasured(evaluation) &&
        untriedFaults(faults, recorder.events).size === 0);
    const isFailedRound = failure === 'other' || (failure === 'content' && failed === undefined);
    if (isFailedRound)
      failed = {
        round: number,
        schedule,
        runtime: runtime.name,
        power: place.power,
        only: catchesUp ? roundFaults.map(({ name }) => name) : undefined,
      };
    // Save only the data of a failed round: it is evidence, and the data of a round that passed has no use.
    await removeOrReport(
      () => (isFailedRound ? saveData(outcome.disk, join(round.dir, 'data-at-end')) : outcome.disk.remove()),
      options.progress,
    );
    if (failure === 'none' && !options.keep && options.out === undefined)
      await removeOrReport(() => removeTree(round.dir), options.progress);
    place.pace.noteTail(performance.now() - outcome.faultsEndedMs);
  }
  return { rounds, failed, writtenOutside: [...writtenOutside], escaped: [...escaped] };
}

/** Returns the time for the first start, in ms. A target that claims a longer one for a recovery may need it here too. */
function startLimitMs({ guarantee }: Target): number {
  return Math.max(FIRST_START_MS, (guarantee.recoverySeconds ?? 0) * 1000);
}

/** Returns the number of rounds that give every fault its turn. Power cuts alone have no turns: their list is empty. */
export function turnsOf(faults: number, faultsPerRound: number): number {
  return faults === 0 ? 0 : Math.ceil(faults / faultsPerRound);
}

/** Chooses the faults of a round that tries unmet faults again. Power cuts have rounds of their own, which come last. */
function chooseCatchUp(unmet: readonly Fault[]): Fault[] {
  const { power, others } = splitByPower(unmet);
  return others.length > 0 ? others.slice(0, MAX_FAULTS_PER_ROUND) : power;
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
