import { describeHarm, isHealed } from '../../conformance/history/cluster-states.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { REQUIREMENTS } from '../../conformance/requirements/requirements.js';
import type { GateResult } from '../gate/result.js';
import { commandLine, pathFromHere } from '../host/command-line.js';
import { fixItLines } from '../host/fix-it.js';
import { colourVerdict, type Style } from './style.js';
import { table } from './table.js';
import { timeLines } from './time-lines.js';

/** Formats the result of a gate as lines for people. */
export function gateReport(result: GateResult, style: Style): string[] {
  const lines = [
    '',
    `${style.strong(result.target)}: ${result.rounds} rounds in ${formatSeconds(result.tookMs)}, seed ${result.seed}`,
    ...setupLines(result),
    '',
    ...messageLines(result),
    '',
    style.strong('Faults'),
    ...faultLines(result),
    '',
    ...crashStateLines(result, style),
    style.strong('Time'),
    ...timeLines(result.time),
    '',
    style.strong('Requirements'),
    ...requirementLines(result, style),
  ];
  if (result.violations.length > 0) lines.push('', style.strong('Violations'), ...violationLines(result));
  if (result.story.length > 0) {
    const id =
      result.story.flatMap((event) => ('id' in event && event.id !== null ? [event.id] : []))[0] ?? '';
    lines.push('', style.strong(`The story of message ${id}`), ...result.story.map(formatEvent));
  }
  const { crashStates } = result;
  if (crashStates !== null && crashStates.story.length > 0)
    lines.push('', style.strong('The smallest crash state that shows it'), ...crashStates.story.map(indent));
  if (result.losses.length > 0)
    lines.push('', style.strong('What the crashes took'), ...result.losses.map((line) => `  ${line}`));
  if (result.causes.length > 0)
    lines.push('', style.strong('Causes'), ...result.causes.map((line) => `  ${line}`));
  if (result.warnings.length > 0)
    lines.push('', ...result.warnings.map((warning) => `${style.warn('warning')}: ${warning}`));
  lines.push('', `${colourVerdict(style, result.verdict)}: ${result.why}${alsoNotMeasured(result)}`);
  lines.push(...fixItLines(result.requirements));
  if (result.evidence !== null) lines.push(`evidence: ${result.evidence}`);
  if (result.bundle !== null)
    lines.push(`run it again: ${commandLine('replay', pathFromHere(result.bundle))}`);
  if (result.verdict !== 'pass')
    lines.push(`${result.bundle === null ? 'run it again' : 'or'}: ${result.replay}`);
  return [...lines, claimedHitsLine(result)];
}

/** Says where the target ran, when a profile chose it. */
function setupLines({ setup: { profile, runtime, power, powerRuntime }, faults }: GateResult): string[] {
  if (profile === undefined) return [];
  if (faults.every(({ powerBackend }) => powerBackend === undefined))
    return [`profile ${profile}: runtime ${runtime}`];
  const where = powerRuntime === undefined ? '' : `, runtime ${powerRuntime}`;
  return [`profile ${profile}: runtime ${runtime}; power cuts by ${power}${where}`];
}

/** Formats the last line of a report: how many of the claimed faults hit, and which others were asked for. */
export function claimedHitsLine({
  claimedHits: { claimed, hit, neverHit },
}: Pick<GateResult, 'claimedHits'>): string {
  const names = neverHit.map(({ name }) => name).join(', ');
  return `${hit} of ${claimed} claimed faults hit${names === '' ? '' : `; named with --faults and never hit: ${names}`}`;
}

/** Names the claimed requirements that were not measured and that the reason of the verdict leaves out. */
function alsoNotMeasured({ verdict, why, requirements }: GateResult): string {
  // A failed gate ends early: what it did not measure is not what needs attention.
  if (verdict === 'fail') return '';
  const named = new Set(why.match(/PP-\d+/g));
  const others = requirements.filter((one) => one.verdict === 'not-measured' && !named.has(one.id));
  if (others.length === 0) return '';
  return `; ${named.size > 0 ? 'also ' : ''}not measured: ${others.map(({ id }) => id).join(', ')}`;
}

const indent = (line: string) => `  ${line}`;

/** Formats what the exploration of crash states has found, with an empty line at the end; nothing without one. */
function crashStateLines({ crashStates }: GateResult, style: Style): string[] {
  if (crashStates === null) return [];
  const { states, distinct, statesPerSecond, atRisk, broken, lost, tookMs } = crashStates;
  return [
    style.strong('Crash states'),
    ...table([
      [
        '  states',
        `${states} in ${formatSeconds(tookMs)}, ${distinct} different (${statesPerSecond} a second)`,
      ],
      ['  at risk', `${atRisk} states with something at risk`],
      ['  broken', `${broken} states, ${lost} messages lost`],
    ]),
    '',
  ];
}

function messageLines(result: GateResult): string[] {
  const recovery = result.worstRecoveryMs === null ? 'none' : formatSeconds(result.worstRecoveryMs);
  return table([
    ['  submitted', `${result.submitted}`],
    ['  confirmed', `${result.confirmed}`],
    ['  rejected', `${result.rejected}`],
    ['  indefinite', `${result.indefinite}`],
    ['  delivered', `${result.delivered}`],
    ['  lost', `${result.lost}`],
    ...(result.notDelivered > 0 ? [['  not delivered', `${result.notDelivered}`]] : []),
    ['  corrupted', `${result.corrupted}`],
    ['  duplicates', `${result.duplicates}, besides ${result.redeliveries} allowed redeliveries`],
    ['  crashes', `${result.crashes}, worst recovery ${recovery}`],
  ]);
}

function faultLines({ faults }: GateResult): string[] {
  return table(
    faults.map(({ name, tried, hit, powerBackend, why, remedy, missed }) =>
      why === undefined
        ? [
            `  ${name}`,
            `tried ${tried}`,
            `hit ${hit}`,
            [
              powerBackend === undefined ? '' : `by ${powerBackend}`,
              missed === undefined ? '' : `last miss: ${missed}`,
            ]
              .filter((text) => text !== '')
              .join(', '),
          ]
        : [`  ${name}`, 'not measured', '', `${why} (${remedy})`],
    ),
  );
}

function requirementLines({ requirements }: GateResult, style: Style): string[] {
  const titles = new Map<string, string>(REQUIREMENTS.map(({ id, title }) => [id, title]));
  const rows = table(requirements.map(({ id, why }) => [`${id}  ${titles.get(id) ?? ''}`, why]));
  return requirements.map(({ verdict }, index) => {
    const padded = verdict.padEnd('not-measured'.length);
    return `  ${colourVerdict(style, verdict, padded)}  ${rows[index] ?? ''}`;
  });
}

function violationLines({ violations }: GateResult): string[] {
  return violations.map(
    ({ requirement, id, what }) => `  ${requirement}${id === undefined ? '' : ` message ${id}`}: ${what}`,
  );
}

function formatSeconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 0)} s`;
}

/**
 * Formats an event as one line: its time, its kind, and its details as they are in the history. What a fault did to
 * files and calls is left out: it has lines of its own.
 */
function formatEvent(event: HistoryEvent): string {
  const { kind, atMs, ...all } = event;
  const rest =
    event.kind === 'fault'
      ? { fault: event.fault, injection: event.injection, detail: event.detail }
      : event.kind === 'cluster-state'
        ? {
            injection: event.injection,
            state: isHealed(event) ? 'everything is healed' : describeHarm(event),
          }
        : all;
  const details = Object.entries(rest)
    .filter(([, value]) => !Array.isArray(value) || value.length > 0)
    .map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  const text = details.join(' ');
  return `  ${(atMs / 1000).toFixed(3).padStart(9)} s  ${kind.padEnd(16)} ${event.kind !== 'fault' && text.length > 220 ? `${text.slice(0, 220)}…` : text}`;
}
