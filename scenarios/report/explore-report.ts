import type { ClusterFamily } from '../explore/result/cluster-family.js';
import type { ExploreResult } from '../explore/result/result.js';
import type { StrategyName } from '../explore/strategies/strategy-run.js';
import { commandLine, pathFromHere } from '../host/command-line.js';
import { fixItLines } from '../host/fix-it.js';
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
    ...(result.cluster === undefined
      ? [style.strong('Strategies'), ...strategyLines(result)]
      : [style.strong('States'), ...familyLines(result.cluster)]),
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
  lines.push(...fixItLines(result.requirements));
  if (result.evidence !== null) lines.push(`evidence: ${result.evidence}`);
  if (result.bundle !== null)
    lines.push(`run it again: ${commandLine('replay', pathFromHere(result.bundle))}`);
  if (result.verdict !== 'pass')
    lines.push(`${result.bundle === null ? 'run it again' : 'or'}: ${result.replay}`);
  return lines;
}

function factLines(result: ExploreResult): string[] {
  const { log, recoveries, cluster } = result;
  const confirmed = ['  confirmed', `${result.confirmed} of ${result.submitted}`];
  const states = `${result.states}, ${result.distinct} different, ${result.atRisk} with something at risk`;
  const end = [
    ...(result.timedOut.states > 0 ? [['  timed out', `${result.timedOut.states}`]] : []),
    ['  lost', `${result.lost}`],
  ];
  if (cluster !== undefined)
    return table([
      confirmed,
      [
        '  requests to the disks',
        `${log.entries} of ${cluster.nodes.length} nodes, ${log.from} before the load`,
      ],
      ['  states', states],
      ['  explored', `${result.explored.cuts} of ${result.explored.allCuts} instants`],
      ['  starts of the cluster', `${cluster.startsPerMinute} a minute`],
      ['  not judged', describeUnmountable(result)],
      ...end,
    ]);
  return table([
    confirmed,
    ['  requests to the disk', `${log.entries}, under load from ${log.from} on`],
    ['  states', states],
    ['  explored', exploredShare(result)],
    ['  recoveries recorded', `${recoveries.recorded}, cut into ${recoveries.states} states`],
    ['  not mountable', describeUnmountable(result)],
    ...end,
  ]);
}

/** What happens to the nodes in the states of each family of a cluster. */
const FAMILY_LABELS: Readonly<Record<ClusterFamily, string>> = {
  'all-lost': 'all nodes lose their power, and all that was not flushed',
  'all-kept': 'all nodes lose their power, and nothing that was written',
  'one-lost': 'all nodes lose their power, one of them what was not flushed',
  torn: 'all nodes lose their power, and writes are torn',
  random: 'all nodes lose their power, and writes drawn at random',
  'one-cut': 'one node loses its power, and the others are killed',
  'one-cut-random': 'one node loses its power, writes drawn at random, and the others are killed',
  away: 'all nodes lose their power, and one does not come back',
  'away-random': 'all nodes lose their power, writes drawn at random, and one does not come back',
};

function familyLines({ families }: NonNullable<ExploreResult['cluster']>): string[] {
  return table(
    Object.entries(FAMILY_LABELS).map(([family, label]) => [
      `  ${label}`,
      `${families[family as ClusterFamily] ?? 0}`,
    ]),
  );
}

/** Formats the share of the log that was explored. A share that is not 0 is never shown as 0. */
function exploredShare({ explored: { cuts, allCuts, share } }: ExploreResult): string {
  const percent = share > 0 && share < 0.001 ? 'less than 0.1' : (100 * share).toFixed(1);
  return `${cuts} of ${allCuts} positions of the cut under load (${percent} %)`;
}

function describeUnmountable({ unmountable: { states, first }, cluster }: ExploreResult): string {
  return first === null
    ? '0'
    : `${states}${cluster === undefined ? ', not judged' : ''}; the first is ${first.state}: ${first.why}`;
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
