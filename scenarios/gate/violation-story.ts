import type { Evaluation } from '../../conformance/checkers/evaluate.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { tracesOf } from '../../conformance/history/traces.js';

/**
 * Describes the first violation in a few lines. If it names a message, the lines are the message's
 * submission, its answer, the first crash after that, and its deliveries.
 */
export function violationStory(events: readonly HistoryEvent[], { findings }: Evaluation): string[] {
  const violation = findings
    .filter(({ verdict }) => verdict === 'fail')
    .flatMap(({ requirement, violations }) => violations.map((one) => ({ requirement, ...one })))
    .at(0);
  if (violation === undefined) return [];
  const { requirement, id, what } = violation;
  if (id === undefined) return [`${requirement}: ${what}`];
  const trace = tracesOf(events).byId.get(id);
  const { submitted, answered } = trace ?? {};
  const lines: string[] = [];
  if (submitted !== undefined) {
    lines.push(formatLine(submitted, `message ${id} submitted, ${submitted.sizeBytes} bytes`));
  }
  if (answered !== undefined) lines.push(formatLine(answered, `${answered.outcome}: ${answered.detail}`));
  const since = events.indexOf(answered ?? submitted ?? events[0] ?? ({} as HistoryEvent));
  const fault = events
    .slice(Math.max(0, since))
    .find((event) => event.kind === 'fault' && event.hit && event.scope !== 'none');
  if (fault?.kind === 'fault') lines.push(formatLine(fault, `${fault.fault}: ${fault.detail}`));
  for (const { delivered } of trace?.deliveries ?? []) {
    lines.push(formatLine(delivered, `delivered, as delivery ${delivered.sequence}`));
  }
  return [...lines, `           ${requirement}: ${what}`];
}

function formatLine({ atMs }: HistoryEvent, what: string): string {
  return `${(atMs / 1000).toFixed(3).padStart(9)} s  ${what}`;
}
