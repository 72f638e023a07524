import type { HistoryEvent } from '../history/events.js';
import { tracesOf } from '../history/traces.js';
import { judgeViolations, Violations } from './finding.js';
import type { Finding } from './verdict.js';

/** Checks PP-6: nothing is delivered that was never submitted. */
export function checkNeverSubmitted(history: readonly HistoryEvent[]): Finding {
  const { byId, unidentified, deliveries } = tracesOf(history);
  const violations = new Violations();
  for (const { delivered } of unidentified) {
    violations.add(
      `delivery ${delivered.sequence} (${delivered.sizeBytes} bytes) carries no number of this run`,
    );
  }
  for (const { id, submitted, deliveries } of byId.values()) {
    const first = deliveries[0];
    if (submitted === undefined && first)
      violations.add(`delivery ${first.delivered.sequence} was never submitted`, id);
  }
  const figures = { deliveries, neverSubmitted: violations.count };
  return judgeViolations(
    'PP-6',
    violations,
    { count: deliveries, what: 'deliveries' },
    'deliveries were never submitted',
    figures,
  );
}
