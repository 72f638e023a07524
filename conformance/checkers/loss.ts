import type { HistoryEvent } from '../history/events.js';
import { type Trace, tracesOf } from '../history/traces.js';
import { makeFinding, Violations } from './finding.js';
import { shapeFigures, shapesOf } from './loss-shape.js';
import {
  describeFates,
  isRefusedForGood,
  missingRecipientCount,
  rottedIds,
  type Undelivered,
  undeliveredMessages,
} from './undelivered.js';
import type { Finding } from './verdict.js';

/** Checks PP-1: no confirmed message is lost. */
export function checkLoss(history: readonly HistoryEvent[]): Finding {
  const rotted = rottedIds(history);
  const { byId, uneventful } = tracesOf(history);
  let { confirmed } = uneventful;
  let rottedCount = 0;
  let refusedForGood = 0;
  for (const trace of byId.values()) {
    if (trace.answered?.outcome !== 'confirmed') continue;
    confirmed += 1;
    if (missingRecipientCount(trace) === 0) continue;
    if (isRefusedForGood(trace)) refusedForGood += 1;
    else if (rotted.has(trace.id)) rottedCount += 1;
  }
  const undelivered = undeliveredMessages(history);
  const violations = new Violations();
  const failed = undelivered.filter(({ fate }) => fate !== 'undecided');
  for (const one of failed) violations.add(describeLoss(one), one.trace.id);
  const notDelivered = failed.filter(({ fate }) => fate === 'late').length;
  const outstanding = undelivered.length - failed.length;
  const figures = {
    confirmed,
    lost: failed.length - notDelivered,
    rotted: rottedCount,
    refusedForGood,
    ...shapeFigures(
      shapesOf(
        history,
        failed.map(({ trace }) => trace.id),
      ),
    ),
    ...(notDelivered > 0 ? { notDelivered } : {}),
    ...(outstanding > 0 ? { outstanding } : {}),
  };
  if (confirmed === 0) return makeFinding('PP-1', 'not-measured', 'nothing was confirmed', figures);
  if (failed.length > 0) {
    const why = describeFates(failed, `of ${confirmed} confirmed messages`);
    return makeFinding('PP-1', 'fail', why, figures, violations);
  }
  if (outstanding > 0) {
    return makeFinding('PP-1', 'not-measured', describeFates(undelivered, 'confirmed messages'), figures);
  }
  return makeFinding('PP-1', 'pass', `all ${confirmed} confirmed messages were delivered`, figures);
}

function describeLoss({ trace, missing, fate, text }: Undelivered): string {
  const story = describeDeliveries(trace, missing);
  return fate === 'late' ? `${story}: ${text.replace(/^were /, '')}` : story;
}

function describeDeliveries(trace: Trace, missing: number): string {
  const refused = trace.deliveries.at(-1);
  if (refused === undefined) return 'confirmed and never delivered';
  const all = trace.submitted?.recipients ?? 1;
  if (missing < all) return `confirmed and delivered to ${all - missing} of ${all} recipients only`;
  return 'confirmed, delivered once without being accepted, and never offered again';
}
