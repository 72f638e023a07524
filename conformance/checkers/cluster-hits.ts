import { type Harm, isLinkFault, isSameHarm, NO_HARM } from '../history/cluster-states.js';
import type { FaultInjected, HistoryEvent } from '../history/events.js';
import { answersOf } from '../history/traces.js';
import { firstAfter } from './crashes.js';

/**
 * An injection that had an effect on a cluster, and the part of the history that belongs to it. Positions are indexes in the
 * history.
 */
export interface ClusterHit {
  fault: FaultInjected;
  /** Position of its first event, before anything is cut or killed if the kit records that. */
  begin: number;
  /** Position of its last event: the recovery after it, or the fault itself. */
  end: number;
  /** Number of messages that were at risk at its crash. */
  atRisk: number;
  /** Number of messages that were confirmed from its beginning to the beginning of the next injection, or the end of the round. */
  confirmed: number;
}

/**
 * Returns the injections with an effect, in order: those that hit and acted on a link, and those that stopped a process or took
 * a disk. One of the latter may be a miss, which proves nothing for the target. What it took is lost nevertheless.
 */
export function clusterHits(history: readonly HistoryEvent[]): ClusterHit[] {
  const hits: ClusterHit[] = [];
  const beginOf = new Map<number, number>();
  const atRiskOf = new Map<number, number>();
  const byInjection = new Map<number, ClusterHit>();
  /** Number of confirmations before each position: of all that an event stands for. */
  const confirmedBefore: number[] = [];
  /** Positions at which the confirmations of an earlier injection stop to count. */
  const limits: number[] = [];
  let confirmed = 0;
  let harm: Harm = NO_HARM;
  /** Injections of which a state was recorded. */
  const begun = new Set<number>();
  history.forEach((event, position) => {
    confirmedBefore.push(confirmed);
    confirmed += answersOf(event).confirmed;
    if (event.kind === 'installed') {
      limits.push(position);
      harm = NO_HARM;
    }
    if (event.kind === 'cluster-state') {
      const isBegin =
        !begun.has(event.injection) && isSameHarm({ ...harm, promoted: [] }, { ...event, promoted: [] });
      begun.add(event.injection);
      harm = event;
      // The injection has not done anything yet: what is confirmed now is not confirmed during it.
      if (isBegin) return;
    }
    if (event.kind === 'at-risk' || event.kind === 'cluster-state' || event.kind === 'fault') {
      if (!beginOf.has(event.injection)) {
        beginOf.set(event.injection, position);
        limits.push(position);
      }
    }
    if (event.kind === 'at-risk') atRiskOf.set(event.injection, event.confirmedUndelivered);
    if (event.kind === 'recovered' || event.kind === 'recovery-failed' || event.kind === 'healed') {
      const hit = byInjection.get(event.injection);
      if (hit !== undefined) hit.end = position;
    }
    if (event.kind !== 'fault') return;
    if (event.scope === 'none' && !(event.hit && isLinkFault(event.fault))) return;
    const begin = beginOf.get(event.injection) ?? position;
    const atRisk = atRiskOf.get(event.injection) ?? 0;
    const hit = { fault: event, begin, end: position, atRisk, confirmed: 0 };
    byInjection.set(event.injection, hit);
    hits.push(hit);
  });
  for (const hit of hits) {
    const next = firstAfter(limits, hit.begin, (position) => position) ?? history.length;
    hit.confirmed = (confirmedBefore[next] ?? confirmed) - (confirmedBefore[hit.begin] ?? 0);
  }
  return hits;
}

/**
 * Returns a lookup for `attributeLosses`: the injection that a loss is attributed to, given the position of the
 * confirmation. It is the first one with an effect that ended after the confirmation, in the same round.
 */
export function firstHitLookup(
  history: readonly HistoryEvent[],
  hits: readonly ClusterHit[],
): (confirmedAt: number) => ClusterHit | undefined {
  const installs = history.flatMap(({ kind }, position) => (kind === 'installed' ? [position] : []));
  return (confirmedAt) => {
    const hit = firstAfter(hits, confirmedAt, ({ end }) => end);
    const nextRound = firstAfter(installs, confirmedAt, (position) => position) ?? history.length;
    return hit !== undefined && hit.begin < nextRound ? hit : undefined;
  };
}
