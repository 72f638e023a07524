import type { HistoryEvent, Outcome } from '../history/events.js';
import { tracesOf } from '../history/traces.js';
import type { RequirementId } from '../requirements/requirements.js';
import { judgeViolations, Violations } from './finding.js';
import { rottedIds } from './undelivered.js';
import type { Finding } from './verdict.js';

/** Checks PP-4: each message is delivered as submitted. PP-5 covers indefinite messages, PP-7 damaged ones. */
export function checkIntegrity(history: readonly HistoryEvent[]): Finding {
  return compareDigests(history, 'PP-4', 'deliveries', (outcome) => outcome !== 'indefinite');
}

/** Checks PP-5: an indefinite message is delivered whole or not at all. */
export function checkAtomicity(history: readonly HistoryEvent[]): Finding {
  return compareDigests(
    history,
    'PP-5',
    'deliveries of indefinite messages',
    (outcome) => outcome === 'indefinite',
  );
}

/**
 * Compares the digests of deliveries and submits. A submit that was under way when the run ended has no answer,
 * and counts as indefinite.
 */
function compareDigests(
  history: readonly HistoryEvent[],
  requirement: RequirementId,
  what: string,
  appliesTo: (outcome: Outcome) => boolean,
): Finding {
  const violations = new Violations();
  const rotted = rottedIds(history);
  const { byId, uneventful } = tracesOf(history);
  // The kit has compared these when it read the history.
  let compared = appliesTo('confirmed') ? uneventful.confirmed : 0;
  for (const { id, submitted, answered, deliveries } of byId.values()) {
    if (submitted === undefined || rotted.has(id) || !appliesTo(answered?.outcome ?? 'indefinite')) continue;
    for (const { delivered } of deliveries) {
      compared += 1;
      if (delivered.digest === submitted.digest) continue;
      const sizes = `${submitted.sizeBytes} bytes submitted, ${delivered.sizeBytes} delivered`;
      const where = delivered.difference === undefined ? '' : `; ${delivered.difference}`;
      violations.add(`delivery ${delivered.sequence} differs from what was submitted (${sizes})${where}`, id);
    }
  }
  const figures = { compared, corrupted: violations.count };
  return judgeViolations(
    requirement,
    violations,
    { count: compared, what },
    'deliveries were changed',
    figures,
  );
}
