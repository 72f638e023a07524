import type { Evaluation } from '../../conformance/checkers/evaluate.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { REQUIREMENTS } from '../../conformance/requirements/requirements.js';
import type { Fault } from '../../faults/fault.js';

/**
 * Number of catch-up rounds in a row without success, after which the gate goes on with all faults: a fault that cannot
 * hit this target must not use up the budget.
 */
export const MAX_FUTILE_CATCH_UPS = 2;

/**
 * Returns the faults without which the run would leave something open: those that have not hit yet, and those of a
 * requirement that no hit has measured.
 */
export function unmetFaults(
  faults: readonly Fault[],
  history: readonly HistoryEvent[],
  { findings }: Pick<Evaluation, 'findings'>,
): Fault[] {
  const hits = new Set(
    history.flatMap((event) => (event.kind === 'fault' && event.hit ? [event.fault] : [])),
  );
  const unmeasured = new Set<string>(
    findings.filter(({ verdict }) => verdict === 'not-measured').map(({ requirement }) => requirement),
  );
  const needed = new Set(
    REQUIREMENTS.filter(({ id }) => unmeasured.has(id)).flatMap(({ needs }) =>
      needs === 'any' ? [] : needs,
    ),
  );
  return faults.filter(({ name, family }) => !hits.has(name) || needed.has(name) || needed.has(family));
}
