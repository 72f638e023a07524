import type { ExploreResult } from '../explore/result/result.js';
import type { WayName } from '../explore/strategies/way.js';
import { shellWord } from '../host/shell.js';
import { paint, type Style } from './style.js';
import { table } from './table.js';

const WAYS: Readonly<Record<WayName, string>> = {
  image: 'straight in the image',
  mount: 'mounted and restored',
  target: 'target started',
};

/** The report for people, as lines. */
export function exploreReport(result: ExploreResult, style: Style): string[] {
  const lines = [
    '',
    `${style.strong(result.target)}: ${result.states} crash states in ${seconds(result.tookMs)}, seed ${result.seed}`,
    '',
    ...facts(result),
    '',
    style.strong('Ways'),
    ...ways(result),
  ];
  if (result.violations.length > 0) {
    lines.push('', style.strong('Violations'));
    for (const { requirement, id, what } of result.violations)
      lines.push(`  ${requirement}${id === undefined ? '' : ` message ${id}`}: ${what}`);
  }
  if (result.smallest !== null) {
    lines.push('', style.strong('The smallest state that shows it'));
    lines.push(...result.smallest.story.map((line) => `  ${line}`));
  }
  lines.push('', `${paint(style, result.verdict)}: PP-13: ${result.why}`);
  if (result.evidence !== null) lines.push(`evidence: ${result.evidence}`);
  if (result.bundle !== null) lines.push(`run it again: plugpull replay ${shellWord(result.bundle)}`);
  if (result.verdict !== 'pass')
    lines.push(`${result.bundle === null ? 'run it again' : 'or'}: ${result.replay}`);
  return lines;
}

function facts(result: ExploreResult): string[] {
  const { log, compared, recoveries } = result;
  return table([
    ['  confirmed', `${result.confirmed} of ${result.submitted}`],
    ['  requests to the disk', `${log.entries}, under load from ${log.from} on`],
    ['  states', `${result.states}, ${result.distinct} different, ${result.atRisk} with something at risk`],
    ['  recoveries cut', `${recoveries.cut} into ${recoveries.states} states`],
    ['  seen in two ways', `${compared.states}, ${compared.differ} of them differ`],
    ['  not mountable', unmountableIn(result)],
    ...(result.unanswered.states > 0 ? [['  not answered in time', `${result.unanswered.states}`]] : []),
    ['  lost', `${result.lost}`],
  ]);
}

function unmountableIn({ unmountable: { states, first } }: ExploreResult): string {
  return first === null ? '0' : `${states}, not judged; the first is ${first.state}: ${first.why}`;
}

function ways({ ways }: ExploreResult): string[] {
  return table(
    Object.entries(ways).map(([name, way]) => [
      `  ${WAYS[name as WayName]}`,
      `${way.distinct} different of ${way.states}`,
      `${way.statesPerSecond} a second`,
      `${way.workers} workers`,
    ]),
  );
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 0)} s`;
}
