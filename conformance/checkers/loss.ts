import type { HistoryEvent } from '../history/events.js';
import { type Trace, tracesOf } from '../history/traces.js';
import { makeFinding, Violations } from './finding.js';
import type { Finding } from './verdict.js';

/** Checks PP-1: no confirmed message is lost. */
export function checkLoss(history: readonly HistoryEvent[]): Finding {
  const rotted = rottedIds(history);
  const end = drainStatus(history);
  const lost = new Violations();
  let confirmed = 0;
  let rottedCount = 0;
  let refusedForGood = 0;
  for (const trace of tracesOf(history).byId.values()) {
    if (trace.answered?.outcome !== 'confirmed') continue;
    confirmed += 1;
    const missing = missingRecipientCount(trace);
    if (missing === 0) continue;
    if (trace.deliveries.some(({ end }) => end?.event.kind === 'refused' && end.event.permanent))
      refusedForGood += 1;
    else if (rotted.has(trace.id)) rottedCount += 1;
    else lost.add(describeLoss(trace, missing), trace.id);
  }
  const figures = { confirmed, lost: lost.count, rotted: rottedCount, refusedForGood };
  if (confirmed === 0) return makeFinding('PP-1', 'not-measured', 'nothing was confirmed', figures);
  if (lost.count === 0)
    return makeFinding('PP-1', 'pass', `all ${confirmed} confirmed messages were delivered`, figures);
  if (end !== 'complete') {
    const why = `${lost.count} confirmed messages were outstanding when ${end}`;
    return makeFinding('PP-1', 'not-measured', why, { ...figures, lost: 0, outstanding: lost.count });
  }
  return makeFinding(
    'PP-1',
    'fail',
    `${lost.count} of ${confirmed} confirmed messages were lost`,
    figures,
    lost,
  );
}

/** Returns the ids of messages whose stored bytes were damaged on purpose. */
export function rottedIds(history: readonly HistoryEvent[]): Set<string> {
  const ids = new Set<string>();
  for (const event of history) {
    if (event.kind === 'fault' && event.hit) for (const id of event.rotted) ids.add(id);
  }
  return ids;
}

/** Returns the number of recipients of the message without an accepted delivery. */
export function missingRecipientCount(trace: Trace): number {
  const expected = trace.submitted?.recipients ?? 1;
  const served = new Set<number>();
  for (const { delivered, end } of trace.deliveries) {
    if (end?.event.kind === 'consumed') for (const recipient of delivered.recipients) served.add(recipient);
  }
  return Math.max(0, expected - served.size);
}

/**
 * Returns 'complete' if the target was up at the last drain and delivered nothing more. Only then a missing
 * message is lost. Otherwise returns the reason why nothing can be concluded, which completes "outstanding when
 * …".
 */
export function drainStatus(history: readonly HistoryEvent[]): string {
  let end = 'the run ended without a wait for them';
  let down = false;
  for (const event of history) {
    if (event.kind === 'recovery-failed') down = true;
    if (event.kind === 'recovered') down = false;
    if (event.kind === 'drained') {
      if (down) end = 'the target had not recovered';
      else end = event.complete ? 'complete' : 'the wait for them ended, though deliveries still came';
    }
  }
  return end;
}

function describeLoss(trace: Trace, missing: number): string {
  const refused = trace.deliveries.at(-1);
  if (refused === undefined) return 'confirmed and never delivered';
  const all = trace.submitted?.recipients ?? 1;
  if (missing < all) return `confirmed and delivered to ${all - missing} of ${all} recipients only`;
  return 'confirmed, delivered once without being accepted, and never offered again';
}
