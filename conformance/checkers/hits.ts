import type { HistoryEvent } from '../history/events.js';
import { tracesOf } from '../history/traces.js';
import { familyOf } from '../requirements/requirements.js';
import { FAULT_NAMES, type FaultName } from '../target-file/definition.js';
import { firstAfter } from './crashes.js';
import { Violations } from './finding.js';
import { missingRecipientCount, rottedIds } from './loss.js';

/** One injection that hit, with the messages that were at risk at that moment. */
export interface Hit {
  injection: number;
  /** Index of the injection's event in the history. */
  position: number;
  /** Number of messages that were confirmed and not yet delivered at the injection. */
  atRisk: number;
  /** Number of messages that were submitted and not yet answered at the injection. */
  inFlight: number;
}

/** Returns a predicate: whether the fault of this name belongs to `family`. */
export const inFamily = (family: FaultName) => (fault: string) => familyOf(fault, FAULT_NAMES) === family;

/** Returns the matching injections that hit, in the order of the history. */
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

/** Upper bound for the length of a miss's reason in a finding, in characters. */
const MAX_REASON_LENGTH = 400;

/**
 * Returns why the last of the matching injections missed, as the end of a sentence such as `no tear hit`; empty when
 * none was tried.
 */
export function lastMiss(history: readonly HistoryEvent[], matches: (fault: string) => boolean): string {
  const misses = history.flatMap((event) =>
    event.kind === 'fault' && !event.hit && matches(event.fault) ? [event.detail] : [],
  );
  const last = misses.at(-1);
  if (last === undefined || last === '') return '';
  const text = last.length > MAX_REASON_LENGTH ? `${last.slice(0, MAX_REASON_LENGTH)}…` : last;
  return `; the last of ${misses.length} misses: ${text}`;
}

/**
 * Returns the confirmed messages that were lost because of a hit. Messages that the receiver refused
 * permanently or that were damaged on purpose are left out.
 * @param blamedHit returns the hit to which the loss of a message is attributed, given the position of the
 * message's confirmation; undefined if no hit caused it.
 * @param describe returns the text of the violation, given the hit, the message, and the position of its confirmation.
 */
export function attributeLosses(
  history: readonly HistoryEvent[],
  blamedHit: (confirmedAt: number) => Hit | undefined,
  describe: (hit: Hit, id: string, confirmedAt: number) => string,
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
    lost.add(describe(hit, trace.id, position ?? 0), trace.id);
  }
  return lost;
}

/**
 * Returns a lookup for `attributeLosses`. The lookup returns a hit only if it is the first crash after the
 * confirmation.
 */
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
