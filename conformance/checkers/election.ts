import {
  describeHarm,
  type Harm,
  isHealed,
  isSameHarm,
  listOf,
  NO_HARM,
  nodeOf,
  servingNodes,
} from '../history/cluster-states.js';
import type { HistoryEvent } from '../history/events.js';
import type { Guarantee } from '../target-file/definition.js';
import { makeFinding, Violations } from './finding.js';
import type { Finding } from './verdict.js';

/**
 * Share of the claimed time. If the first submit comes within this share after a change, the time runs from the change, and
 * otherwise from that submit. A fault waits for a confirmation exactly as long as claimed: if the time ran from each first submit,
 * the claimed time would never be over when the fault ends.
 */
const SOON_SHARE = 0.1;

/** A time in which some nodes of a cluster must confirm messages again. */
interface Election {
  injection: number;
  harm: Harm;
  /** The nodes that must confirm. */
  serving: ReadonlySet<string>;
  /** True when these nodes are no majority, and go on because one of them was promoted. */
  byPromotion: boolean;
  /** The claimed time in milliseconds, with the time of a recovery if the nodes need one that the kit has just started. */
  limitMs: number;
  /** Time from which the claimed time runs, in milliseconds. */
  startMs: number;
  /** Earliest submit since the start to one of the nodes, as far as its answer names the node. */
  firstTryMs: number;
  /** Messages that were submitted since the start and are not answered yet, each with the time of its submit. */
  open: Map<string, number>;
  /** Number of answers of the nodes that were no confirmation. */
  refused: number;
  /** Time at which the state changed; undefined until then. */
  endMs: number | undefined;
  result: 'undecided' | 'in-time' | 'late';
  tookMs: number;
}

/**
 * Checks PP-24: the nodes that are left confirm again within the claimed time. It runs from each change of what the kit
 * does to the cluster until these nodes confirm a message that was submitted after the change. A change is complete when the same
 * state is recorded again, and when a service of a node that is to be down has ended. If the state changes
 * before the time is over, nothing is concluded. The time runs from the first submit to one of these nodes if that is later,
 * and from the recovery after the injection: services that the kit has not started yet confirm nothing. If a node is needed that
 * was down before, the claimed time of a recovery is added.
 */
export function checkElection(
  history: readonly HistoryEvent[],
  { cluster, recoverySeconds = Number.POSITIVE_INFINITY }: Guarantee,
): Finding {
  if (cluster === undefined)
    return makeFinding('PP-24', 'not-measured', 'the target claims nothing about a cluster', {});
  const limitMs = cluster.electionSeconds * 1000;
  const elections = electionsOf(history, cluster.tolerates, limitMs, recoverySeconds * 1000);
  const violations = new Violations();
  for (const one of elections.filter(({ result }) => result === 'late'))
    violations.add(`${describe(one)}; ${seconds(one.limitMs)} are claimed`);
  const measured = elections.filter(({ result }) => result !== 'undecided');
  // A node that was promoted may wait for another one before it confirms: a short state of it demands nothing.
  const isDemanded = ({ byPromotion, result }: Election) => !byPromotion || result !== 'undecided';
  const harmed = elections.filter((one) => !isHealed(one.harm) && isDemanded(one));
  const harmedMeasured = harmed.filter((one) => measured.includes(one)).length;
  const worstElectionMs = Math.round(Math.max(0, ...measured.map(({ tookMs }) => tookMs)));
  const figures = {
    elections: measured.length,
    whileHarmed: harmedMeasured,
    undecidedElections: elections.length - measured.length,
    worstElectionMs,
  };
  if (violations.count > 0) {
    const why = `${violations.count} of ${measured.length} times the nodes that were left did not confirm within ${seconds(limitMs)}; the worst took ${seconds(worstElectionMs)} or more`;
    return makeFinding('PP-24', 'fail', why, figures, violations);
  }
  if (measured.length === 0 || (harmed.length > 0 && harmedMeasured === 0)) {
    const why =
      elections.length === 0
        ? 'no fault left a majority of the nodes that had to confirm'
        : `in none of ${(harmed.length > 0 ? harmed : elections).length} states did the nodes that were left confirm a message, and none lasted ${seconds(limitMs)} with submits to them`;
    return makeFinding('PP-24', 'not-measured', why, figures);
  }
  const why = `the nodes that were left confirmed again ${measured.length} times, ${harmedMeasured} of them while others were harmed; the slowest after ${seconds(worstElectionMs)}`;
  return makeFinding('PP-24', 'pass', why, figures);
}

function describe({ injection, harm, serving, tookMs, refused }: Election): string {
  const state = isHealed(harm) ? 'everything is healed' : describeHarm(harm);
  return `${listOf([...serving])} confirmed nothing for ${seconds(tookMs)} (injection ${injection}: ${state}; ${refused} submits were not confirmed)`;
}

function electionsOf(
  history: readonly HistoryEvent[],
  tolerates: number,
  electionMs: number,
  recoveryMs: number,
): Election[] {
  const elections: Election[] = [];
  let nodes: readonly string[] = [];
  let harm: Harm = NO_HARM;
  /** Nodes that were down, and that are not known to be ready again. */
  const recovering = new Set<string>();
  /** Injection of the present state. */
  let injection = 0;
  let current: Election | undefined;
  /** The election of the present state, also when it is decided. */
  let ofState: Election | undefined;
  /** Elections that ended without a decision, and of which submits are still open. */
  let ended: Election[] = [];
  const end = (atMs: number) => {
    if (current === undefined) return;
    current.endMs = atMs;
    if (current.result === 'undecided' && current.open.size > 0) ended.push(current);
    current = undefined;
  };
  /**
   * Begins the time again, because the change is complete only now. A confirmation of before proves nothing: it came from a
   * cluster of which nothing was harmed yet.
   */
  const restart = (atMs: number) => {
    if (ofState === undefined || ofState.result === 'late') return;
    Object.assign(ofState, {
      ...{ startMs: atMs, firstTryMs: Number.POSITIVE_INFINITY, open: new Map(), refused: 0 },
      ...{ endMs: undefined, result: 'undecided', tookMs: 0 },
    } satisfies Partial<Election>);
    ended = ended.filter((one) => one !== ofState);
    current = ofState;
  };
  const answered = (election: Election, event: Extract<HistoryEvent, { kind: 'answered' }>) => {
    const submittedMs = election.open.get(event.id);
    election.open.delete(event.id);
    if (submittedMs === undefined || !election.serving.has(event.node ?? '')) return;
    election.firstTryMs = Math.min(election.firstTryMs, submittedMs);
    const isTriedSoon = election.firstTryMs - election.startMs <= electionMs * SOON_SHARE;
    const sinceMs = isTriedSoon ? election.startMs : election.firstTryMs;
    // An answer after the end of the state shows only that there was none until then.
    election.tookMs = (election.endMs ?? event.atMs) - sinceMs;
    const isConfirmed = event.outcome === 'confirmed' && election.endMs === undefined;
    if (!isConfirmed) election.refused += 1;
    if (election.tookMs > election.limitMs) election.result = 'late';
    else if (isConfirmed) election.result = 'in-time';
  };
  for (const event of history) {
    switch (event.kind) {
      case 'installed':
        end(event.atMs);
        ended = [];
        ofState = undefined;
        nodes = event.nodes ?? [];
        harm = NO_HARM;
        recovering.clear();
        break;
      case 'cluster-state': {
        const isBegin = event.injection !== injection;
        injection = event.injection;
        if (isSameHarm(harm, event) && !isBegin) {
          restart(event.atMs);
          break;
        }
        end(event.atMs);
        ofState = undefined;
        const isSameAsBefore = isSameHarm({ ...harm, promoted: [] }, { ...event, promoted: [] });
        harm = event;
        // An injection begins, and has not changed anything yet. What it does next may take any time.
        if (isBegin && isSameAsBefore) break;
        for (const node of harm.down) recovering.add(node);
        const serving = servingNodes(nodes, harm, tolerates);
        if (serving.length === 0) break;
        const without = { ...harm, down: [...new Set([...harm.down, ...recovering])] };
        // A majority without the nodes that are still starting needs no time for their recovery.
        const isReady = servingNodes(nodes, without, tolerates).length > 0;
        const limitMs = isReady ? electionMs : electionMs + recoveryMs;
        current = {
          ...{ injection: event.injection, harm, serving: new Set(serving), limitMs, startMs: event.atMs },
          byPromotion: serving.length * 2 <= nodes.length,
          ...{ firstTryMs: Number.POSITIVE_INFINITY, open: new Map(), refused: 0, endMs: undefined },
          ...{ result: 'undecided', tookMs: 0 },
        };
        ofState = current;
        elections.push(current);
        break;
      }
      case 'submitted':
        current?.open.set(event.id, event.atMs);
        break;
      case 'answered':
        if (current !== undefined) {
          answered(current, event);
          if (current.result !== 'undecided') current = undefined;
        }
        for (const one of ended) answered(one, event);
        ended = ended.filter(({ open, result }) => open.size > 0 && result === 'undecided');
        break;
      case 'recovered':
        recovering.clear();
        if (current?.injection !== event.injection) break;
        current.startMs = Math.max(current.startMs, event.atMs);
        current.limitMs = electionMs;
        break;
      case 'service-exited':
        if (event.expected && current?.serving.has(nodeOf(event.service))) end(event.atMs);
        else if (harm.down.includes(nodeOf(event.service))) restart(event.atMs);
        break;
      case 'at-risk':
      case 'fault':
        // Another injection may have harmed more nodes.
        if (event.injection !== current?.injection) end(event.atMs);
        break;
      case 'recovery-failed':
      case 'drained':
      case 'run-ended':
        end(event.atMs);
        break;
      default:
        break;
    }
  }
  return elections;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
