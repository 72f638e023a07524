import type { HistoryEvent } from '../../conformance/history/events.js';
import { REQUIREMENTS } from '../../conformance/requirements/requirements.js';
import type { GateResult } from '../gate/result.js';
import { shellWord } from '../host/shell.js';
import { paint, type Style } from './style.js';
import { table } from './table.js';

/** The report for people, as lines. */
export function gateReport(result: GateResult, style: Style): string[] {
  const lines = [
    '',
    `${style.strong(result.target)}: ${result.rounds} rounds in ${seconds(result.tookMs)}, seed ${result.seed}`,
    '',
    ...messages(result),
    '',
    style.strong('Faults'),
    ...faults(result),
    '',
    style.strong('Requirements'),
    ...requirements(result, style),
  ];
  if (result.violations.length > 0) lines.push('', style.strong('Violations'), ...violations(result));
  if (result.story.length > 0) {
    const id = result.violations.find((violation) => violation.id !== undefined)?.id ?? '';
    lines.push('', style.strong(`The story of message ${id}`), ...result.story.map(tell));
  }
  lines.push('', `${paint(style, result.verdict)}: ${result.why}`);
  if (result.evidence !== null) lines.push(`evidence: ${result.evidence}`);
  if (result.bundle !== null) lines.push(`run it again: plugpull replay ${shellWord(result.bundle)}`);
  if (result.verdict !== 'pass')
    lines.push(`${result.bundle === null ? 'run it again' : 'or'}: ${result.replay}`);
  return lines;
}

function messages(result: GateResult): string[] {
  const recovery = result.worstRecoveryMs === null ? 'none' : seconds(result.worstRecoveryMs);
  return table([
    ['  submitted', `${result.submitted}`],
    ['  confirmed', `${result.confirmed}`],
    ['  rejected', `${result.rejected}`],
    ['  indefinite', `${result.indefinite}`],
    ['  delivered', `${result.delivered}`],
    ['  lost', `${result.lost}`],
    ['  corrupted', `${result.corrupted}`],
    ['  duplicates', `${result.duplicates} beyond those in delivery, ${result.repeats} rightly came again`],
    ['  crashes', `${result.crashes}, worst recovery ${recovery}`],
  ]);
}

function faults({ faults }: GateResult): string[] {
  return table(
    faults.map(({ name, tried, hit, by, why, remedy }) =>
      why === undefined
        ? [`  ${name}`, `tried ${tried}`, `hit ${hit}`, by === undefined ? '' : `by ${by}`]
        : [`  ${name}`, 'not measured', '', `${why} (${remedy})`],
    ),
  );
}

function requirements({ requirements }: GateResult, style: Style): string[] {
  const titles = new Map<string, string>(REQUIREMENTS.map(({ id, title }) => [id, title]));
  const rows = table(requirements.map(({ id, why }) => [`${id}  ${titles.get(id) ?? ''}`, why]));
  return requirements.map(({ verdict }, index) => {
    const word = verdict.padEnd('not-measured'.length);
    return `  ${paint(style, verdict, word)}  ${rows[index] ?? ''}`;
  });
}

function violations({ violations }: GateResult): string[] {
  return violations.map(
    ({ requirement, id, what }) => `  ${requirement}${id === undefined ? '' : ` message ${id}`}: ${what}`,
  );
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 0)} s`;
}

/** One event as a line: when, what, and the details as they are in the history. */
function tell(event: HistoryEvent): string {
  const { kind, atMs, ...rest } = event;
  const details = Object.entries(rest)
    .filter(([, value]) => !Array.isArray(value) || value.length > 0)
    .map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  const text = details.join(' ');
  return `  ${(atMs / 1000).toFixed(3).padStart(9)} s  ${kind.padEnd(16)} ${text.length > 220 ? `${text.slice(0, 220)}…` : text}`;
}
