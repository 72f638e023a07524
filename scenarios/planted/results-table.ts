import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { IMPLEMENTATIONS, type Implementation } from '../host/implementations.js';
import { packageRoot } from '../host/version.js';
import type { PlantedBug } from './definition.js';
import { MODE_NAMES, type ModeResult } from './mode.js';
import { type BugResult, type OriginalRuns, type Results, totalsOf } from './results.js';

/** The manual that contains the table of planted bugs. */
const MANUAL = join(packageRoot(), 'scenarios/README.md');
/** Lines of the manual around a table that is made from the results. */
interface Markers {
  begin: string;
  end: string;
}

const PLANTED: Markers = {
  begin: '<!-- planted: made by npm run planted -->',
  end: '<!-- end of planted -->',
};
/** Markers of the table that says how many bugs were found within a budget. */
export const BUDGETS: Markers = {
  begin: '<!-- budgets: made by npm run planted -->',
  end: '<!-- end of budgets -->',
};
/** Budgets of the table, in seconds. */
const BUDGET_SECONDS = [20, 30, 45, 60, 90, 120] as const;
/** Cell of a mode that did not find the bug, by outcome. The reasons are in results.json. */
const CELL_TEXT = { yes: '', other: 'other', no: 'no', 'not-measured': '–', error: 'error' } as const;

/**
 * Formats the results in Markdown, with a part for each implementation: a row for each bug that was hunted, and a line
 * about the original.
 */
export function resultsTable(
  results: Results,
  planted: readonly PlantedBug[],
  implementations: readonly Pick<Implementation, 'name'>[] = IMPLEMENTATIONS,
): string {
  return eachImplementation(results, implementations, (part, original) => {
    const rows = part.flatMap(({ id, modes }) => {
      const bug = planted.find((one) => one.id === id);
      if (bug === undefined) return [];
      const cells = [`\`${id}\``, conditionOf(bug), ...MODE_NAMES.map((name) => modeCell(modes[name]))];
      return [`| ${cells.join(' | ')} |`];
    });
    const { runs, falseAlarms, notMeasured, errors, seconds } = totalsOf(original);
    const foundCount = part.filter((bug) => bug.found).length;
    return [
      `| bug | shown by | ${MODE_NAMES.join(' | ')} |`,
      `|---|---|${MODE_NAMES.map(() => '---|').join('')}`,
      ...rows,
      '',
      `${foundCount} of ${rows.length} bugs were found. Of ${runs} gates on the original (${seconds} s in total), ${falseAlarms} failed and ` +
        `${errors} ended with an error of the kit; ${notMeasured} were too short to measure every requirement.`,
    ];
  });
}

/**
 * Formats tables in Markdown, one for each implementation: how many of the hunted bugs were found within a budget, by a
 * gate alone, and by a gate or an exploration of that length.
 */
export function budgetsTable(
  results: Results,
  implementations: readonly Pick<Implementation, 'name'>[] = IMPLEMENTATIONS,
): string {
  return eachImplementation(results, implementations, (part) => {
    const hunted = part.filter(
      ({ modes: { gate } }) => gate !== undefined && gate.outcome !== 'not-measured',
    );
    if (hunted.length === 0) return ['No bug was hunted with a gate.'];
    const isFound = (result: ModeResult | undefined, budgetSeconds: number) =>
      result?.outcome === 'yes' && result.seconds <= budgetSeconds;
    const share = (count: number) =>
      `${count} of ${hunted.length} (${Math.round((100 * count) / hunted.length)} %)`;
    const rows = BUDGET_SECONDS.map((seconds) => {
      const byGate = hunted.filter(({ modes }) => isFound(modes.gate, seconds));
      const byEither = hunted.filter(
        ({ modes }) => isFound(modes.gate, seconds) || isFound(modes.explore, seconds),
      );
      return `| ${seconds} s | ${share(byGate.length)} | ${share(byEither.length)} |`;
    });
    return ['| budget | found by a gate | found by a gate or an exploration |', '|---|---|---|', ...rows];
  });
}

/** Formats one part for each implementation that has results, under a line with its name. */
function eachImplementation(
  results: Results,
  implementations: readonly Pick<Implementation, 'name'>[],
  format: (bugs: readonly BugResult[], original: readonly OriginalRuns[]) => string[],
): string {
  return implementations
    .flatMap(({ name }) => {
      const bugs = results.bugs.filter(({ implementation }) => implementation === name);
      const original = results.original.filter(({ implementation }) => implementation === name);
      if (bugs.length === 0 && original.length === 0) return [];
      return [[`Bugs in \`${name}\`:`, '', ...format(bugs, original)].join('\n')];
    })
    .join('\n\n');
}

function conditionOf({ shownBy, faults }: PlantedBug): string {
  return shownBy === 'process' ? faults.map((name) => `\`${name}\``).join(', ') : shownBy;
}

function modeCell(result: ModeResult | undefined): string {
  if (result === undefined) return '–';
  return result.outcome === 'yes' ? `${result.requirement}, ${result.seconds} s` : CELL_TEXT[result.outcome];
}

/** Returns a part of the manual that is made from the results. */
export function readmeSection(manual = readFileSync(MANUAL, 'utf8'), markers = PLANTED): string {
  const { start, end } = sectionBounds(manual, markers);
  return manual.slice(start, end).trim();
}

/** Replaces a table in the manual. */
export function writeReadmeSection(table: string, markers = PLANTED): void {
  const manual = readFileSync(MANUAL, 'utf8');
  const { start, end } = sectionBounds(manual, markers);
  writeFileSync(MANUAL, `${manual.slice(0, start)}\n\n${table}\n\n${manual.slice(end)}`);
}

/**
 * Finds the characters between two markers in the manual.
 * @throws KitError kit-failed when a marker is missing: the table would otherwise overwrite other text.
 */
function sectionBounds(manual: string, markers: Markers): { start: number; end: number } {
  const start = manual.indexOf(markers.begin) + markers.begin.length;
  const end = manual.indexOf(markers.end);
  if (start < markers.begin.length || end < start)
    throw new KitError(
      'kit-failed',
      `${MANUAL}: expected the lines ${markers.begin} and ${markers.end}, in this order`,
    );
  return { start, end };
}
