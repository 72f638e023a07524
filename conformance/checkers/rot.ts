import type { HistoryEvent } from '../history/events.js';
import { tracesOf } from '../history/traces.js';
import { makeFinding, Violations } from './finding.js';
import { missingRecipientCount, rottedIds } from './undelivered.js';
import type { Finding } from './verdict.js';

/** Checks PP-7: a corrupted message is kept aside and reported, never delivered and never silently dropped. */
export function checkRot(history: readonly HistoryEvent[]): Finding {
  const { byId, unidentified } = tracesOf(history);
  const violations = new Violations();
  const rotted = rottedIds(history);
  let missing = 0;
  for (const id of rotted) {
    const trace = byId.get(id);
    if (trace === undefined) continue;
    for (const { delivered } of trace.deliveries) {
      if (delivered.digest === trace.submitted?.digest) continue;
      violations.add(`had rotted and was delivered all the same, as delivery ${delivered.sequence}`, id);
    }
    if (trace.answered?.outcome === 'confirmed' && missingRecipientCount(trace) > 0) missing += 1;
  }
  const firstRot = history.findIndex(
    (event) => event.kind === 'fault' && event.hit && event.rotted.length > 0,
  );
  if (missing > 0) {
    for (const { delivered, position } of unidentified) {
      if (position < firstRot) continue;
      violations.add(`delivery ${delivered.sequence} cannot be read: one that had rotted was delivered`);
    }
  }
  const keptAside = countKeptAsideSince(history, firstRot);
  const figures = { rotted: rotted.size, missing, keptAside: keptAside ?? 0 };
  if (rotted.size === 0) return makeFinding('PP-7', 'not-measured', 'no stored message was damaged', figures);
  if (keptAside !== undefined && keptAside < missing) {
    violations.add(`${missing} rotted messages are missing, and the target names ${keptAside}`);
  }
  if (violations.count > 0)
    return makeFinding(
      'PP-7',
      'fail',
      'rotted messages were delivered or dropped in silence',
      figures,
      violations,
    );
  if (missing > 0 && keptAside === undefined) {
    return makeFinding(
      'PP-7',
      'not-measured',
      'the target has no verify command that could name what it kept aside',
      figures,
    );
  }
  return makeFinding(
    'PP-7',
    'pass',
    `${rotted.size} damaged, ${missing} kept aside and named, none delivered wrong`,
    figures,
  );
}

/**
 * Returns the number of messages that the target reported as kept aside after the damage: the maximum of each
 * installation, added up. Undefined if there was no inspection.
 */
function countKeptAsideSince(history: readonly HistoryEvent[], since: number): number | undefined {
  let inspected = false;
  let earlierInstallations = 0;
  let maxKeptAside = 0;
  for (let at = Math.max(0, since); at < history.length; at += 1) {
    const event = history[at];
    if (event?.kind === 'installed') {
      earlierInstallations += maxKeptAside;
      maxKeptAside = 0;
    } else if (event?.kind === 'inspected') {
      inspected = true;
      maxKeptAside = Math.max(maxKeptAside, event.keptAside);
    }
  }
  return inspected ? earlierInstallations + maxKeptAside : undefined;
}
