import {
  cutOffNodes,
  type Harm,
  isHealed,
  isLinkFault,
  isSameHarm,
  listOf,
  NO_HARM,
} from '../history/cluster-states.js';
import type { HistoryEvent } from '../history/events.js';
import { lostFilesOf } from '../history/lost-files.js';
import { tracesOf } from '../history/traces.js';
import type { Guarantee } from '../target-file/definition.js';
import { clusterLosses } from './cluster-loss.js';
import { makeFinding } from './finding.js';
import type { Finding } from './verdict.js';

/**
 * Time after a `cluster-state` event in which a cut may not be complete, in milliseconds. The event comes before the change.
 * A second event with the same lists ends this time.
 */
const CUT_GRACE_MS = 2000;
/** Time before the event that ends a cut in which the cut may be healed already, in milliseconds. */
const HEAL_GRACE_MS = 1000;

/**
 * Checks PP-23: a cut or stale link costs nothing. No confirmed message is lost, a node that is cut off into a minority
 * confirms nothing, and after the healing all nodes hold the same.
 */
export function checkLinks(history: readonly HistoryEvent[], guarantee: Guarantee): Finding {
  const takenFromFile = lastTakenFromFile(history);
  const losses = clusterLosses(
    ['cut or stale link', 'cut or stale links'],
    history,
    { isName: isLinkFault, isHit: ({ fault }) => isLinkFault(fault) },
    (id, { fault }) => (takenFromFile.get(id) ?? 0) > fault.injection,
  );
  const { violations } = losses;
  const byMinority = confirmedByMinority(history);
  for (const { id, node, sinceMs, injection } of byMinority)
    violations.add(
      `${node} confirmed it although it was cut off from the majority for ${seconds(sinceMs)} (injection ${injection}): split brain`,
      id,
    );
  const again = deliveredAgain(history, guarantee);
  for (const { id, by, consumedFrom, sequence } of again)
    violations.add(
      `consumed from ${consumedFrom} with an answer, and after the healing delivered again by ${by} as delivery ${sequence}: split brain`,
      id,
    );
  const unequal = unequalNodes(history);
  for (const what of unequal) violations.add(what);
  const figures = {
    ...losses.figures,
    confirmedByMinority: byMinority.length,
    deliveredAgain: again.length,
    unequalNodes: unequal.length,
  };
  if (violations.count > 0) {
    const parts = [
      ...(losses.figures.lostAfterFault === 0 ? [] : [losses.why]),
      ...(byMinority.length === 0
        ? []
        : [
            `${byMinority.length} messages were confirmed by ${listOf([...new Set(byMinority.map(({ node }) => node))])} in a minority`,
          ]),
      ...(again.length === 0
        ? []
        : [`${again.length} consumed messages came again from another node after the healing`]),
      ...unequal,
    ];
    return makeFinding('PP-23', 'fail', parts.join('; '), figures, violations);
  }
  const reason = losses.undecided > 0 ? losses.why : losses.unmeasured;
  if (reason !== undefined) return makeFinding('PP-23', 'not-measured', reason, figures);
  const some = `${losses.figures.hits} cut or stale link${losses.figures.hits === 1 ? '' : 's'}`;
  const why = `nothing was lost at ${some}; ${losses.figures.confirmedSince} messages were confirmed during and after`;
  return makeFinding('PP-23', 'pass', why, figures);
}

/** Returns for each message the number of the last injection that took it from a file. */
function lastTakenFromFile(history: readonly HistoryEvent[]): Map<string, number> {
  const taken = new Map<string, number>();
  for (const event of history) {
    if (event.kind !== 'fault') continue;
    for (const { messages } of lostFilesOf(event)) for (const id of messages) taken.set(id, event.injection);
  }
  return taken;
}

/** A message that a node of a minority confirmed. */
export interface MinorityConfirmation {
  id: string;
  node: string;
  /** Time from the cut to the submit, in milliseconds. */
  sinceMs: number;
  injection: number;
}

/** A node that is cut off. */
interface CutOff {
  injection: number;
  /** Time of the event before the cut. */
  atMs: number;
  /** Time from which the cut is surely complete. */
  completeMs: number;
  /** Confirmations that count if the cut is not healed soon. */
  confirmations: { id: string; atMs: number; sinceMs: number }[];
}

/**
 * Returns the messages that were submitted to a node while it was cut off into a minority, and that it confirmed while it
 * still was. Submits soon after the event of the cut and confirmations soon before the event of the healing do not count:
 * the cut is made after the first event.
 */
export function confirmedByMinority(history: readonly HistoryEvent[]): MinorityConfirmation[] {
  const found: MinorityConfirmation[] = [];
  const cutOff = new Map<string, CutOff>();
  const submittedMs = new Map<string, number>();
  let nodes: readonly string[] = [];
  let harm: Harm = NO_HARM;
  /**
   * Nodes of the last promotion that was completed: its state was recorded twice. Such a node may go on alone until the
   * others have caught up.
   */
  let promoted: string[] = [];
  const end = (node: string, atMs: number) => {
    const { injection, confirmations } = cutOff.get(node) ?? { injection: 0, confirmations: [] };
    for (const { id, atMs: confirmedMs, sinceMs } of confirmations)
      if (confirmedMs <= atMs - HEAL_GRACE_MS) found.push({ id, node, sinceMs, injection });
    cutOff.delete(node);
  };
  const change = (next: Harm, atMs: number, injection: number) => {
    const isRepeated = isSameHarm(harm, next);
    harm = next;
    const inThisState = harm.promoted ?? [];
    if (isRepeated && inThisState.length > 0) promoted = inThisState;
    const minority = cutOffNodes(nodes, { ...harm, promoted: [...promoted, ...inThisState] });
    for (const node of [...cutOff.keys()]) if (!minority.has(node)) end(node, atMs);
    for (const node of minority) {
      const known = cutOff.get(node);
      if (known === undefined)
        cutOff.set(node, { injection, atMs, completeMs: atMs + CUT_GRACE_MS, confirmations: [] });
      else if (isRepeated) known.completeMs = Math.min(known.completeMs, atMs);
    }
  };
  for (const event of history) {
    switch (event.kind) {
      case 'installed':
        change(NO_HARM, event.atMs, 0);
        promoted = [];
        nodes = event.nodes ?? [];
        submittedMs.clear();
        break;
      case 'cluster-state':
        change(event, event.atMs, event.injection);
        break;
      case 'submitted':
        if (cutOff.size > 0) submittedMs.set(event.id, event.atMs);
        break;
      case 'answered': {
        const since = submittedMs.get(event.id);
        submittedMs.delete(event.id);
        const state = cutOff.get(event.node ?? '');
        if (event.outcome !== 'confirmed' || since === undefined || state === undefined) break;
        if (since < state.completeMs) break;
        state.confirmations.push({ id: event.id, atMs: event.atMs, sinceMs: since - state.atMs });
        break;
      }
      default:
        break;
    }
  }
  const lastMs = history.at(-1)?.atMs ?? 0;
  for (const node of [...cutOff.keys()]) end(node, lastMs);
  return found;
}

/** A message that came again from another node. */
interface DeliveredAgain {
  id: string;
  consumedFrom: string;
  by: string;
  sequence: number;
}

/**
 * Returns the messages that a receiver consumed from one node with an answer, and that another node delivered again after
 * links were healed, beyond what the target claims about duplicates.
 */
function deliveredAgain(history: readonly HistoryEvent[], guarantee: Guarantee): DeliveredAgain[] {
  const bound = guarantee.duplicatesPerCrash;
  if (bound === 'unbounded') return [];
  const healings = healingsOf(history);
  if (healings.length === 0) return [];
  const found: (DeliveredAgain & { position: number })[] = [];
  for (const { id, deliveries } of tracesOf(history).byId.values()) {
    if (deliveries.length < 2) continue;
    for (const [index, { delivered, position }] of deliveries.entries()) {
      const before = deliveries
        .slice(0, index)
        .find(
          ({ end }) =>
            end?.event.kind === 'consumed' && end.event.how === 'answered' && end.position < position,
        );
      const consumed = before?.end;
      const from = before?.delivered.node;
      if (consumed === undefined || from === undefined || delivered.node === undefined) continue;
      if (from === delivered.node) continue;
      const healing = healings.find((one) => one.position > consumed.position && one.position < position);
      if (healing === undefined) continue;
      const isExcused =
        typeof bound === 'object' &&
        healing.cutMs - consumed.event.atMs <= bound.consumedWithinSeconds * 1000;
      if (isExcused) continue;
      found.push({ id, consumedFrom: from, by: delivered.node, sequence: delivered.sequence, position });
      break;
    }
  }
  found.sort((one, other) => one.position - other.position);
  if (typeof bound !== 'number') return found;
  // As many as the target claims for each crash are allowed for each healing.
  let allowed = 0;
  return found.filter(({ position }) => {
    const budget = bound * healings.filter((one) => one.position < position).length;
    if (allowed >= budget) return true;
    allowed += 1;
    return false;
  });
}

/** Returns the ends of cuts: the position of the first event without a harm after a cut, and the time of the cut. */
function healingsOf(history: readonly HistoryEvent[]): { position: number; cutMs: number }[] {
  const healings: { position: number; cutMs: number }[] = [];
  let cutMs: number | undefined;
  history.forEach((event, position) => {
    if (event.kind === 'installed') cutMs = undefined;
    if (event.kind !== 'cluster-state') return;
    if (event.cut.length > 0) cutMs ??= event.atMs;
    else if (cutMs !== undefined && isHealed(event)) {
      healings.push({ position, cutMs });
      cutMs = undefined;
    }
  });
  return healings;
}

/**
 * Returns the rounds in which nodes report different numbers of live messages after links were cut and healed and every
 * message was waited for, one line each.
 */
function unequalNodes(history: readonly HistoryEvent[]): string[] {
  const found: string[] = [];
  let wasCut = false;
  let isDrained = false;
  let live = new Map<string, number>();
  const end = () => {
    if (wasCut && isDrained && new Set(live.values()).size > 1) {
      const numbers = [...live].map(([node, count]) => `${node} holds ${count}`);
      found.push(`after the healing ${listOf(numbers)} live messages: split brain`);
    }
    live = new Map();
  };
  for (const event of history) {
    switch (event.kind) {
      case 'installed':
        end();
        wasCut = false;
        isDrained = false;
        break;
      case 'cluster-state':
        if (event.cut.length > 0) wasCut = true;
        end();
        isDrained = false;
        break;
      case 'fault':
        if (event.hit && isLinkFault(event.fault)) wasCut = true;
        break;
      case 'submitted':
        end();
        isDrained = false;
        break;
      case 'drained':
        isDrained = event.complete;
        live = new Map();
        break;
      case 'inspected':
        // The last report of each node counts: a node may still have copied when it was asked first.
        if (isDrained && event.ok && event.node !== undefined && event.live !== undefined)
          live.set(event.node, event.live);
        break;
      default:
        break;
    }
  }
  end();
  return found;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
