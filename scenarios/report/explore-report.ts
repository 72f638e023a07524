import type { ExploreResult } from '../explore/result/result.js';
import type { StrategyName } from '../explore/strategies/strategy-run.js';
import { commandLine, pathFromHere } from '../host/command-line.js';
import { colourVerdict, type Style } from './style.js';
import { table } from './table.js';
import { timeLines } from './time-lines.js';

const STRATEGY_LABELS: Readonly<Record<StrategyName, string>> = {
  mount: 'mounted and restored',
  target: 'target started',
};

/** Formats the result of an exploration as lines for people. */
export function exploreReport(result: ExploreResult, style: Style): string[] {
  const lines = [
    '',
    `${style.strong(result.target)}: ${result.states} crash states in ${formatSeconds(result.tookMs)}, seed ${result.seed}`,
    '',
    ...factLines(result),
    '',
    style.strong('Strategies'),
    ...strategyLines(result),
    '',
    style.strong('Time'),
    ...timeLines(result.time),
  ];
  if (result.warnings.length > 0)
    lines.push('', ...result.warnings.map((warning) => `${style.warn('warning')}: ${warning}`));
  if (result.violations.length > 0) {
    lines.push('', style.strong('Violations'));
    for (const { requirement, id, what } of result.violations)
      lines.push(`  ${requirement}${id === undefined ? '' : ` message ${id}`}: ${what}`);
  }
  if (result.smallest !== null) {
    lines.push('', style.strong('The smallest state that shows it'));
    lines.push(...result.smallest.story.map((line) => `  ${line}`));
  }
  lines.push('', `${colourVerdict(style, result.verdict)}: PP-13: ${result.why}`);
  if (result.evidence !== null) lines.push(`evidence: ${result.evidence}`);
  if (result.bundle !== null)
    lines.push(`run it again: ${commandLine('replay', pathFromHere(result.bundle))}`);
  if (result.verdict !== 'pass')
    lines.push(`${result.bundle === null ? 'run it again' : 'or'}: ${result.replay}`);
  return lines;
}

function factLines(result: ExploreResult): string[] {
  const { log, recoveries } = result;
  return table([
    ['  confirmed', `${result.confirmed} of ${result.submitted}`],
    ['  requests to the disk', `${log.entries}, under load from ${log.from} on`],
    ['  states', `${result.states}, ${result.distinct} different, ${result.atRisk} with something at risk`],
    ['  explored', exploredShare(result)],
    ['  recoveries recorded', `${recoveries.recorded}, cut into ${recoveries.states} states`],
    ['  not mountable', describeUnmountable(result)],
    ...(result.timedOut.states > 0 ? [['  timed out', `${result.timedOut.states}`]] : []),
    ['  lost', `${result.lost}`],
  ]);
}

/** Formats the share of the log that was explored. A share that is not 0 is never shown as 0. */
function exploredShare({ explored: { cuts, allCuts, share } }: ExploreResult): string {
  const percent = share > 0 && share < 0.001 ? 'less than 0.1' : (100 * share).toFixed(1);
  return `${cuts} of ${allCuts} positions of the cut under load (${percent} %)`;
}

function describeUnmountable({ unmountable: { states, first } }: ExploreResult): string {
  return first === null ? '0' : `${states}, not judged; the first is ${first.state}: ${first.why}`;
}

function strategyLines({ strategies }: ExploreResult): string[] {
  return table(
    Object.entries(strategies).map(([name, figures]) => [
      `  ${STRATEGY_LABELS[name as StrategyName]}`,
      `${figures.distinct} different of ${figures.states}`,
      `${figures.statesPerSecond} a second`,
      `${figures.workers} workers`,
    ]),
  );
}

function formatSeconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 0)} s`;
}
