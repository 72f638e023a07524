import type { HistoryEvent } from '../history/events.js';
import { tracesOf } from '../history/traces.js';
import { familyOf } from '../requirements/requirements.js';
import { FAULT_NAMES, type FaultName } from '../target-file/definition.js';
import { firstAfter } from './crashes.js';
import { Violations } from './finding.js';
import { missingRecipientCount, rottedIds } from './loss.js';

/** A fault that hit, its place in the history, and what was at stake then. */
export interface Hit {
  injection: number;
  position: number;
  /** Confirmed and not yet delivered. */
  atRisk: number;
  /** Submitted and not yet answered. */
  inFlight: number;
}

/** Whether a fault of any name belongs to a family. */
export const inFamily = (family: FaultName) => (fault: string) => familyOf(fault, FAULT_NAMES) === family;

/** The faults of a kind that hit, in order. */
export function hitsOf(history: readonly HistoryEvent[], matches: (fault: string) => boolean): Hit[] {
  const atRiskByInjection = new Map<number, { atRisk: number; inFlight: number }>();
  const hits: Hit[] = [];
  history.forEach((event, position) => {
    if (event.kind === 'at-risk') {
      atRiskByInjection.set(event.injection, {
        atRisk: event.confirmedUndelivered,
        inFlight: event.inFlight,
      });
    }
    if (event.kind !== 'fault' || !event.hit || !matches(event.fault)) return;
    const { injection } = event;
    hits.push({ injection, position, ...(atRiskByInjection.get(injection) ?? { atRisk: 0, inFlight: 0 }) });
  });
  return hits;
}

/**
 * Messages that were confirmed, and never delivered for no reason but the hit that `culprit` names.
 * @param blamedHit given the place of a confirmation: the hit that a loss is put down to, if any.
 */
export function attributeLosses(
  history: readonly HistoryEvent[],
  blamedHit: (confirmedAt: number) => Hit | undefined,
  describe: (hit: Hit) => string,
): Violations {
  const confirmedAt = new Map<string, number>();
  history.forEach((event, position) => {
    if (event.kind === 'answered' && event.outcome === 'confirmed') confirmedAt.set(event.id, position);
  });
  const rotted = rottedIds(history);
  const lost = new Violations();
  for (const trace of tracesOf(history).byId.values()) {
    const position = confirmedAt.get(trace.id);
    const hit = position === undefined ? undefined : blamedHit(position);
    if (hit === undefined || missingRecipientCount(trace) === 0 || rotted.has(trace.id)) continue;
    if (trace.deliveries.some(({ end }) => end?.event.kind === 'refused' && end.event.permanent)) continue;
    lost.add(describe(hit), trace.id);
  }
  return lost;
}

/** A hit is to blame where no other crash came between the confirmation and it. */
export function nextHitLookup(
  history: readonly HistoryEvent[],
  hits: readonly Hit[],
): (confirmedAt: number) => Hit | undefined {
  const faults = history.flatMap((event, position) => {
    return event.kind === 'fault' && event.scope !== 'none' ? [position] : [];
  });
  return (confirmedAt) => {
    const first = firstAfter(faults, confirmedAt, (position) => position);
    return hits.find(({ position }) => position === first);
  };
}
