import type { AtRiskMessages } from '../../../conformance/checkers/crash-states.js';
import { CHECKERS } from '../../../conformance/checkers/evaluate.js';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import { escapeWarnings } from '../../round/escape-warnings.js';
import type { SmallestState, UnfinishedResult } from '../result/result.js';
import type { StateWorkspace } from '../states/workspace.js';
import { ownersOf } from '../states/write-owners.js';
import { parseClusterState } from './address.js';
import type { ClusterExploration } from './cluster-exploration.js';
import type { OpenNode } from './cluster-inspector.js';
import type { ClusterRun } from './cluster-run.js';
import { clusterStory } from './cluster-story.js';

/**
 * What an exploration of a cluster must have judged before its pass counts. A start of a cluster takes seconds, so the
 * numbers are smaller than those for a single node.
 */
export const CLUSTER_MINIMUM = {
  /** Judged states. */
  states: 12,
  /** Judged states in which a confirmed message was at risk. */
  statesAtRisk: 10,
  /** Different instants. */
  cuts: 5,
  /** Rules by which states are chosen. */
  families: 3,
} as const;

const MAX_REPORTED_VIOLATIONS = 10;
const MAX_WARNED_FILES = 3;
/** Upper bound for the share of states that show nothing about the target. */
const MAX_UNJUDGED_SHARE = 0.2;

/** The outcome of an exploration. */
interface ClusterOutcome {
  clusterRun: ClusterRun;
  nodes: readonly OpenNode[];
  workspace: StateWorkspace;
  atRisk: AtRiskMessages;
  /** Time in which states were made and inspected. */
  seconds: number;
}

/** Ends the history, lets the checker judge it, and makes the result. */
export function clusterResult(exploration: ClusterExploration, outcome: ClusterOutcome): UnfinishedResult {
  const { options, recorder, run } = exploration;
  const { clusterRun, atRisk, seconds, nodes } = outcome;
  const { target, signal, seed } = options;
  const tooLittle = whyInconclusive(exploration, clusterRun);
  recordAtRisk(exploration, atRisk, tooLittle);
  recorder.record({ kind: 'run-ended', how: signal.aborted ? 'interrupted' : 'completed' });
  const finding = CHECKERS['PP-13'](recorder.events, target.guarantee);
  const { verdict, why } =
    finding.verdict === 'pass' && tooLittle !== undefined
      ? { verdict: 'not-measured' as const, why: tooLittle }
      : finding;
  const count = (test: (event: HistoryEvent) => boolean) => recorder.events.filter(test).length;
  const allCuts = run.instants.length;
  const perSecond = (number: number) => (seconds === 0 ? 0 : Math.round((100 * number) / seconds) / 100);
  return {
    target: target.name,
    ...{ verdict, why },
    requirements: [{ id: finding.requirement, verdict, why }],
    warnings: warningsOf(exploration),
    states: finding.figures.crashStates ?? 0,
    distinct: clusterRun.inspected,
    statesPerSecond: perSecond(clusterRun.inspected),
    lost: finding.figures.lostInStates ?? 0,
    broken: finding.figures.brokenStates ?? 0,
    atRisk: finding.figures.statesAtRisk ?? 0,
    strategies: {},
    timedOut: { states: clusterRun.timedOut.length, first: clusterRun.timedOut[0] ?? null },
    unmountable: { states: clusterRun.unjudged.length, first: clusterRun.unjudged[0] ?? null },
    recoveries: { recorded: 0, states: 0, distinct: 0 },
    submitted: count((event) => event.kind === 'submitted'),
    confirmed: count((event) => event.kind === 'answered' && event.outcome === 'confirmed'),
    log: {
      entries: nodes.reduce((sum, { recording }) => sum + recording.model.entries.length, 0),
      from: (run.instants[0]?.lengths ?? []).reduce((sum, length) => sum + length, 0),
    },
    explored: {
      cuts: clusterRun.instants.size,
      allCuts,
      share: allCuts === 0 ? 0 : clusterRun.instants.size / allCuts,
      minimum: CLUSTER_MINIMUM,
    },
    cluster: {
      nodes: nodes.map(({ name }) => name),
      families: Object.fromEntries(clusterRun.families),
      startsPerMinute: Math.round(60 * perSecond(clusterRun.inspected) * 10) / 10,
    },
    seed,
    replay: options.replay(seed),
    violations: finding.violations
      .slice(0, MAX_REPORTED_VIOLATIONS)
      .map((violation) => ({ requirement: finding.requirement, ...violation })),
    smallest: smallestOf(exploration, outcome),
  };
}

/** Returns why an exploration without a violation proves nothing; undefined when it does prove something. */
function whyInconclusive({ run, options }: ClusterExploration, clusterRun: ClusterRun): string | undefined {
  if (run.unwritten !== undefined) return run.unwritten.why;
  const { unjudged, inspected, broken, states, statesAtRisk, instants, families } = clusterRun;
  // A target may refuse to serve without a machine after all have lost their power.
  const strange = unjudged.filter(({ state }) => parseClusterState(state).away === undefined);
  const [one] = strange;
  if (one !== undefined && strange.length > MAX_UNJUDGED_SHARE * (inspected + strange.length))
    return `${strange.length} of ${inspected + strange.length} states show nothing about the target; the first is ${one.state}: ${one.why}`;
  // A failure needs only one state.
  if (broken.length > 0) return undefined;
  const counts = [
    [states, CLUSTER_MINIMUM.states, 'crash states'],
    [statesAtRisk, CLUSTER_MINIMUM.statesAtRisk, 'crash states with something at risk'],
    [instants.size, CLUSTER_MINIMUM.cuts, `of ${run.instants.length} instants`],
    [families.size, CLUSTER_MINIMUM.families, 'families of crash states'],
  ] as const;
  const short = counts.find(([number, minimum]) => number < minimum);
  if (short === undefined) return undefined;
  const [number, minimum, what] = short;
  const limit = inspected >= (options.maxStates ?? Number.POSITIVE_INFINITY) ? '--states' : '--budget';
  return `too few states for a pass: ${number} ${what} explored, expected at least ${minimum} (use a larger ${limit})`;
}

/** Records the crash in the form of the other faults, with the largest number of messages at risk in any state. */
function recordAtRisk(
  { recorder, run }: ClusterExploration,
  atRisk: AtRiskMessages,
  tooLittle: string | undefined,
): void {
  const counts = run.instants.map(
    (_, instant) => atRisk.idsOf(atRisk.required({ prefix: instant, entriesBegun: instant })).length,
  );
  const most = Math.max(0, ...counts);
  recorder.record({
    ...{ kind: 'at-risk', injection: 1, confirmedUndelivered: most, inFlight: 0, inDelivery: 0 },
  });
  recorder.record({
    kind: 'fault',
    fault: 'crash-states',
    injection: 1,
    hit: most > 0 && tooLittle === undefined,
    scope: 'machine',
    services: [],
    detail: tooLittle ?? `the disks that failures at ${run.instants.length} instants could have left`,
    indexDamaged: false,
    rotted: [],
    failingMs: 0,
  });
}

function warningsOf({ options: { target }, run }: ClusterExploration): string[] {
  const escapes = escapeWarnings(target.name, run.escaped);
  if (run.writtenOutside.length === 0) return escapes;
  const more = run.writtenOutside.length - MAX_WARNED_FILES;
  const files = `${run.writtenOutside.slice(0, MAX_WARNED_FILES).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
  return [
    `${target.name} writes ${files} outside {data}: no crash state shows what is stored there`,
    ...escapes,
  ];
}

/** Chooses the broken state that is easiest to understand, and explains it. */
function smallestOf(
  { recorder, run }: ClusterExploration,
  { clusterRun, nodes, workspace, atRisk }: ClusterOutcome,
): SmallestState | null {
  const [first] = [...clusterRun.broken].sort(
    (a, b) =>
      Number(a.state.away !== undefined) - Number(b.state.away !== undefined) ||
      a.namedWrites - b.namedWrites ||
      a.state.instant - b.state.instant,
  );
  if (first === undefined) return null;
  const [id] = first.missing;
  const confirmedAt = id === undefined ? undefined : atRisk.confirmedAtEntry(id);
  const story = clusterStory(first, {
    ...{ run: run.id, nodes, events: recorder.events, confirmedAt },
    lengthsThen: confirmedAt === undefined ? undefined : run.instants[confirmedAt]?.lengths,
    ownersOf: (name, entries) => {
      const node = nodes.find((one) => one.name === name);
      if (node === undefined) return new Map();
      try {
        return ownersOf({ ...node, filesystem: run.filesystem }, entries, workspace);
      } catch {
        // The story says less then, and the verdict stands.
        return new Map();
      }
    },
  });
  return { state: first.address, recovery: null, missing: first.missing, story };
}
