import type { HistoryEvent } from '../history/events.js';
import { makeFinding, Violations } from './finding.js';
import type { Finding } from './verdict.js';

/**
 * Checks PP-9: after a restore the target's own verify command finds the index well formed and equal to the
 * data.
 */
export function checkIndexState(history: readonly HistoryEvent[]): Finding {
  const violations = new Violations();
  let inspections = 0;
  let afterRecovery = 0;
  let recovered = false;
  for (const event of history) {
    if (event.kind === 'recovered') recovered = true;
    if (event.kind !== 'inspected') continue;
    inspections += 1;
    if (recovered) afterRecovery += 1;
    if (event.ok) continue;
    for (const problem of event.problems) violations.add(problem);
    if (event.problems.length === 0)
      violations.add('verify found the stored state wrong and did not say how');
  }
  const figures = { inspections, afterRecovery };
  if (violations.count > 0)
    return makeFinding('PP-9', 'fail', violations.reported[0]?.what ?? '', figures, violations);
  if (afterRecovery === 0)
    return makeFinding(
      'PP-9',
      'not-measured',
      'the stored state was not inspected after a recovery',
      figures,
    );
  return makeFinding(
    'PP-9',
    'pass',
    `well formed and equal to the data in ${inspections} inspections`,
    figures,
  );
}
