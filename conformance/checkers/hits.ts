import type { HistoryEvent } from '../history/events.js';
import { familyOf } from '../requirements/requirements.js';
import { FAULT_NAMES, type FaultName } from '../target-file/definition.js';
import { firstAfter } from './crashes.js';
import { Violations } from './finding.js';
import { describeFates, type Undelivered, undeliveredMessages } from './undelivered.js';

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

/** The undelivered messages that are attributed to hits. */
export interface AttributedLosses {
  /** The messages that were lost, or not delivered within the time that was allowed. */
  violations: Violations;
  /** Number of messages of which nothing can be concluded. */
  undecided: number;
  /** Says what happened: to the violations if there are any, otherwise to the undecided messages. */
  describe(messages: string): string;
}

/**
 * Returns the confirmed messages that were not delivered because of a hit. Messages that the receiver refused
 * permanently or that were damaged on purpose are left out.
 * @param blamedHit returns the hit to which the loss of a message is attributed, given the position of the
 * message's confirmation; undefined if no hit caused it.
 * @param describe returns the text of the violation, given the hit, the message, and the position of its confirmation.
 */
export function attributeLosses<H>(
  history: readonly HistoryEvent[],
  blamedHit: (confirmedAt: number) => H | undefined,
  describe: (hit: H, id: string, confirmedAt: number) => string,
): AttributedLosses {
  const confirmedAt = new Map<string, number>();
  history.forEach((event, position) => {
    if (event.kind === 'answered' && event.outcome === 'confirmed') confirmedAt.set(event.id, position);
  });
  const violations = new Violations();
  const failed: Undelivered[] = [];
  const undecided: Undelivered[] = [];
  for (const message of undeliveredMessages(history)) {
    const position = confirmedAt.get(message.trace.id);
    const hit = position === undefined ? undefined : blamedHit(position);
    if (hit === undefined || position === undefined) continue;
    if (message.fate === 'undecided') {
      undecided.push(message);
      continue;
    }
    failed.push(message);
    violations.add(describe(hit, message.trace.id, position), message.trace.id);
  }
  return {
    violations,
    undecided: undecided.length,
    describe: (messages) => describeFates(failed.length > 0 ? failed : undecided, messages),
  };
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
