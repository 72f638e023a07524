import { type Evaluation, evaluate } from '../../conformance/checkers/evaluate.js';
import { messageEvents } from '../../conformance/checkers/message-events.js';
import type { Verdict } from '../../conformance/checkers/verdict.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import type { Target } from '../../conformance/target-file/definition.js';
import type { FileHabit } from '../../faults/tracing/file-habits.js';
import type { TimeReport } from '../host/phase-clock.js';
import { escapeWarnings } from '../round/escape-warnings.js';
import type { PowerBackendName } from '../runtime/power-backends.js';
import type { PreparedRuntime } from '../runtime/runtime.js';
import { type CrashStatesSummary, withCrashStates } from './crash-states.js';
import { explainLosses } from './explain-losses.js';
import { claimedFaultNames, type Selection } from './select-faults.js';
import { violationCauses } from './violation-causes.js';
import { placesOfLosses, violationToTell } from './violation-story.js';

/**
 * Number of times that a fault was tried and hit. `why` and `remedy` are set if it could not be tried at all.
 */
export interface FaultCount {
  name: string;
  tried: number;
  hit: number;
  /** Backend of a power cut; absent for other faults. */
  powerBackend?: string;
  why?: string;
  remedy?: string;
  /** Reason of the last miss; absent when the fault hit at least once, or was not tried. */
  missed?: string;
}

/** Number of faults that the target claims to survive, and of those that hit at least once in the run. */
export interface ClaimedHits {
  claimed: number;
  hit: number;
  /** Faults and families that the user asked for and that never hit, each with the reason. */
  neverHit: { name: string; why: string }[];
}

/** Runtimes and power backend of a gate. */
export interface GateSetup {
  runtime: PreparedRuntime['name'];
  /** Backend of power cuts. */
  power: PowerBackendName;
  /** Runtime of the rounds of power cuts, if they had one of their own. */
  powerRuntime?: PreparedRuntime['name'];
  /** Profile that chose them, as in `--profile`; absent without one. */
  profile?: string;
}

/** Result of a gate: the object that `--json` prints, and the input of the readable report. */
export interface GateResult {
  target: string;
  verdict: Verdict;
  why: string;
  requirements: { id: string; verdict: Verdict; why: string }[];
  unclaimed: string[];
  setup: GateSetup;
  faults: FaultCount[];
  claimedHits: ClaimedHits;
  /** Facts that weaken the verdict without changing it, one line each. */
  warnings: string[];
  rounds: number;
  submitted: number;
  confirmed: number;
  rejected: number;
  indefinite: number;
  delivered: number;
  lost: number;
  /** Number of confirmed messages that were not delivered in time, and of which it is not known whether they are lost. */
  notDelivered: number;
  duplicates: number;
  /**
   * Number of allowed redeliveries: of messages that were in delivery at a crash, and after a loss of the
   * index.
   */
  redeliveries: number;
  corrupted: number;
  crashes: number;
  /** Duration of the slowest start after a crash; null without such a start. */
  worstRecoveryMs: number | null;
  tookMs: number;
  /** The duration of the run and of each of its phases, and how much of it came after the end of the budget. */
  time: TimeReport;
  seed: number;
  /** Command line that runs the gate again. */
  replay: string;
  /** Directory of history, schedule and logs; null when it was removed. */
  evidence: string | null;
  /** Path of the file for `plugpull replay`; null when nothing failed. */
  bundle: string | null;
  violations: { requirement: string; id?: string; what: string }[];
  /** Events of the first message that a violation names, with the faults in between. */
  story: HistoryEvent[];
  /** Lines that explain the losses: the injections, the files that they took something from, and what each producer lost. */
  losses: string[];
  /** Causes of the losses, a sentence each: the file, the missing sync and a message. Those that took most come first. */
  causes: string[];
  /** What the exploration of crash states has found; null when there was none. */
  crashStates: CrashStatesSummary | null;
}

/** Facts from which `resultOf` makes the result of a gate. */
export interface GateFacts {
  target: Target;
  selection: Selection;
  power: PowerBackendName;
  events: readonly HistoryEvent[];
  rounds: number;
  time: TimeReport;
  /** Name of the runtime; default: `process`. */
  runtime?: PreparedRuntime['name'];
  /** Name of the runtime of power cuts, if they have one of their own. */
  powerRuntime?: PreparedRuntime['name'] | undefined;
  profile?: string | undefined;
  /** True when claims about time are not measured, because a runtime is too slow for them. */
  claimsDropped?: boolean;
  /** Files outside `{data}` that the target was seen to write. Default: none. */
  writtenOutside?: readonly string[];
  /** Command lines of processes that had escaped from their service, and were killed. Default: none. */
  escaped?: readonly string[];
  seed: number;
  replay: string;
  evidence: string | null;
  bundle: string | null;
  /** What the services do to their files, from a traced run; default: not known. */
  habits?: readonly FileHabit[];
  /** What the exploration has found, or why there was none. Default: there was none. */
  explored?: CrashStatesSummary | { unexplored: string };
}

const MAX_REPORTED_VIOLATIONS = 10;
/** Upper bound for the files that a warning names. */
const MAX_WARNED_FILES = 3;

/**
 * Makes the result of a gate: evaluates the history against the target's claims, and counts the figures of
 * the report.
 */
export function resultOf(
  facts: GateFacts,
  evaluation: Evaluation = evaluate(facts.events, facts.target),
): GateResult {
  const { target, selection, power, events, rounds, time, seed, evidence } = facts;
  const merged = facts.explored === undefined ? evaluation : withCrashStates(evaluation, facts.explored);
  const crashStates = facts.explored !== undefined && 'verdict' in facts.explored ? facts.explored : null;
  // A gate ends at its first failure, so at most one of the two has failed.
  const { replay, bundle } = crashStates?.verdict === 'fail' ? crashStates : facts;
  const outcomes = { confirmed: 0, rejected: 0, indefinite: 0 };
  for (const event of events) if (event.kind === 'answered') outcomes[event.outcome]++;
  const all = merged.findings.flatMap(({ requirement, violations }) =>
    violations.map((violation) => ({ requirement, ...violation })),
  );
  // Messages of the exploration are not in this history.
  const told = crashStates?.verdict === 'fail' ? undefined : violationToTell(events, evaluation.findings)?.id;
  const first =
    crashStates?.verdict === 'fail' ? undefined : (told ?? all.find(({ id }) => id !== undefined)?.id);
  // The list is cut at its end. The violation of the printed story must be in it, so it comes first.
  const isTold = ({ id }: { id?: string }) => id !== undefined && id === told;
  const violations = [...all.filter(isTold), ...all.filter((one) => !isTold(one))];
  const recoveries = events.flatMap((event) => (event.kind === 'recovered' ? [event.tookMs] : []));
  const faults = countFaults(events, selection, power);
  const claimedHits = countClaimedHits(target, selection, faults);
  return {
    target: target.name,
    ...withWantedFaults(merged, claimedHits),
    requirements: merged.findings.map(({ requirement, verdict, why }) => ({
      id: requirement,
      verdict,
      why,
    })),
    unclaimed: evaluation.unclaimed,
    setup: {
      runtime: facts.runtime ?? 'process',
      power,
      ...(facts.powerRuntime === undefined ? {} : { powerRuntime: facts.powerRuntime }),
      ...(facts.profile === undefined ? {} : { profile: facts.profile }),
    },
    faults,
    claimedHits,
    warnings: [...new Set([...warningsOf(facts), ...(crashStates?.warnings ?? [])])],
    rounds,
    submitted: count(events, (event) => event.kind === 'submitted'),
    ...outcomes,
    delivered: count(events, (event) => event.kind === 'delivered'),
    lost: sumFigure(evaluation, 'lost'),
    notDelivered: sumFigure(evaluation, 'notDelivered'),
    duplicates: sumFigure(evaluation, 'duplicates'),
    redeliveries: sumFigure(evaluation, 'inDelivery') + sumFigure(evaluation, 'afterIndexLoss'),
    corrupted: sumFigure(evaluation, 'corrupted'),
    crashes: count(events, (event) => event.kind === 'fault' && event.hit && event.scope !== 'none'),
    worstRecoveryMs: recoveries.length === 0 ? null : Math.max(...recoveries),
    tookMs: time.tookMs,
    time,
    seed,
    replay,
    evidence,
    bundle,
    violations: violations.slice(0, MAX_REPORTED_VIOLATIONS),
    story: first === undefined ? [] : messageEvents(events, first),
    losses: [...explainLosses(events, evaluation, facts.habits ?? []), ...placesOfLosses(events, evaluation)],
    causes:
      evaluation.verdict === 'fail'
        ? violationCauses(events, facts.habits ?? [], evaluation).map(({ sentence, fix }) =>
            fix === '' ? sentence : `${sentence}. To fix it: ${fix}`,
          )
        : [],
    crashStates,
  };
}

function countFaults(
  events: readonly HistoryEvent[],
  { faults, unavailable: missing }: Selection,
  power: PowerBackendName,
): FaultCount[] {
  const counts = faults.map(({ name, needs }): FaultCount => {
    const injections = events.filter((event) => event.kind === 'fault' && event.fault === name);
    const hit = count(injections, (event) => event.kind === 'fault' && event.hit);
    const last = injections.at(-1);
    return {
      name,
      tried: injections.length,
      hit,
      ...(hit === 0 && last?.kind === 'fault' ? { missed: last.detail } : {}),
      ...(needs.disk === 'power' ? { powerBackend: power } : {}),
    };
  });
  const notTried = missing.map(({ name, availability: { why, remedy } }) => ({
    name,
    tried: 0,
    hit: 0,
    why,
    remedy,
  }));
  return [...counts, ...notTried];
}

function countClaimedHits(
  target: Target,
  { wanted = [], faults }: Selection,
  counts: readonly FaultCount[],
): ClaimedHits {
  const hits = new Set(counts.filter(({ hit }) => hit > 0).map(({ name }) => name));
  // A fault of one service, such as kill-one:server, is the claimed fault of its base name.
  const names = new Set([...hits].map((name) => name.replace(/:.*/, '')));
  const claimed = claimedFaultNames(target);
  const families = new Map(faults.map(({ name, family }) => [name, family]));
  const neverHit = [...new Set(wanted)].flatMap((name) => {
    const own = counts.filter((one) => one.name === name || families.get(one.name) === name);
    return own.some(({ hit }) => hit > 0) ? [] : [{ name, why: describeNeverHit(own) }];
  });
  return { claimed: claimed.length, hit: claimed.filter((name) => names.has(name)).length, neverHit };
}

/** Warning of a runtime that hides the files of the target from the kit. */
const UNSEEN_DATA =
  'under vm nothing shows that the target stores its messages in {data}: the kit does not see its files in the lab VM';

/** Warning of a runtime in which durations show nothing about the target. */
const TIMES_NOT_MEASURED =
  'claims that count seconds are not measured (recoverySeconds, redeliverySeconds, consumedWithinSeconds): the processors of the lab VM are emulated, because KVM does not work here';

function warningsOf(facts: GateFacts): string[] {
  const slow = facts.claimsDropped === true ? [TIMES_NOT_MEASURED] : [];
  return [...slow, ...dataWarnings(facts), ...escapeWarnings(facts.target.name, facts.escaped ?? [])];
}

function dataWarnings({ target, selection, runtime, writtenOutside = [] }: GateFacts): string[] {
  // A target that stores its messages outside {data} passes every fault of the disk.
  if (runtime === 'vm' && selection.faults.some(({ actsOnStoredData }) => actsOnStoredData))
    return [UNSEEN_DATA];
  const shown = writtenOutside.slice(0, MAX_WARNED_FILES);
  if (shown.length === 0) return [];
  const more = writtenOutside.length - shown.length;
  const files = `${shown.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
  return [`${target.name} writes ${files} outside {data}: no fault of the disk reaches what is stored there`];
}

function describeNeverHit(counts: readonly FaultCount[]): string {
  const tried = counts.reduce((sum, one) => sum + one.tried, 0);
  const missed = counts.findLast((one) => one.missed !== undefined)?.missed;
  if (tried > 0)
    return `0 hits in ${tried} injection${tried === 1 ? '' : 's'}${missed === undefined ? '' : `: ${missed}`}`;
  const unavailable = counts.find(({ why }) => why !== undefined);
  return unavailable === undefined
    ? 'not tried before the run ended'
    : `not available: ${unavailable.why} (${unavailable.remedy})`;
}

/**
 * Returns the verdict of an evaluation. A pass counts as not measured when a fault that the user asked for never hit:
 * the user would take the pass for a pass of that fault.
 */
function withWantedFaults(
  { verdict, why }: Pick<Evaluation, 'verdict' | 'why'>,
  { neverHit }: ClaimedHits,
): { verdict: Verdict; why: string } {
  if (verdict !== 'pass' || neverHit.length === 0) return { verdict, why };
  const reasons = neverHit.map((one) => `${one.name}, ${one.why}`).join('; ');
  return { verdict: 'not-measured', why: `named with --faults and never hit: ${reasons}` };
}

function count(events: readonly HistoryEvent[], test: (event: HistoryEvent) => boolean): number {
  return events.filter(test).length;
}

function sumFigure({ findings }: Evaluation, name: string): number {
  return findings.reduce((sum, { figures }) => sum + (figures[name] ?? 0), 0);
}
