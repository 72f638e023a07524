import type { HistoryEvent, Outcome } from '../history/events.js';
import { tracesOf } from '../history/traces.js';
import type { RequirementId } from '../requirements/requirements.js';
import { judgeViolations, Violations } from './finding.js';
import { rottedIds } from './loss.js';
import type { Finding } from './verdict.js';

/** PP-4: what is delivered is what was submitted. Indefinite and rotted messages are the matter of PP-5 and PP-7. */
export function checkIntegrity(history: readonly HistoryEvent[]): Finding {
  return compareDigests(history, 'PP-4', 'deliveries', (outcome) => outcome !== 'indefinite');
}

/** PP-5: an indefinite message is delivered whole or not at all. */
export function checkAtomicity(history: readonly HistoryEvent[]): Finding {
  return compareDigests(
    history,
    'PP-5',
    'deliveries of indefinite messages',
    (outcome) => outcome === 'indefinite',
  );
}

/** A submit that was under way when the run ended has no answer; that is indefinite too. */
function compareDigests(
  history: readonly HistoryEvent[],
  requirement: RequirementId,
  what: string,
  appliesTo: (outcome: Outcome) => boolean,
): Finding {
  const violations = new Violations();
  const rotted = rottedIds(history);
  let compared = 0;
  for (const { id, submitted, answered, deliveries } of tracesOf(history).byId.values()) {
    if (submitted === undefined || rotted.has(id) || !appliesTo(answered?.outcome ?? 'indefinite')) continue;
    for (const { delivered } of deliveries) {
      compared += 1;
      if (delivered.digest === submitted.digest) continue;
      const sizes = `${submitted.sizeBytes} bytes submitted, ${delivered.sizeBytes} delivered`;
      violations.add(`delivery ${delivered.sequence} differs from what was submitted (${sizes})`, id);
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
