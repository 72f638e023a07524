import type { HistoryEvent } from '../history/events.js';
import { tracesOf } from '../history/traces.js';
import { judgeViolations, Violations } from './finding.js';
import type { Finding } from './verdict.js';

/** Checks PP-3: a rejected message is never delivered. */
export function checkRejected(history: readonly HistoryEvent[]): Finding {
  const violations = new Violations();
  const { byId, uneventful } = tracesOf(history);
  let { rejected } = uneventful;
  for (const { id, answered, deliveries } of byId.values()) {
    if (answered?.outcome !== 'rejected') continue;
    rejected += 1;
    const first = deliveries[0];
    if (first)
      violations.add(`rejected (${answered.detail}) and delivered as ${first.delivered.sequence}`, id);
  }
  const figures = { rejected, rejectedButDelivered: violations.count };
  return judgeViolations(
    'PP-3',
    violations,
    { count: rejected, what: 'rejected messages' },
    'rejected messages were delivered',
    figures,
  );
}
