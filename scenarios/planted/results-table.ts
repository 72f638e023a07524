import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { packageRoot } from '../host/version.js';
import type { PlantedBug } from './definition.js';
import { MODE_NAMES, type ModeResult } from './mode.js';
import type { Results } from './results.js';

/** The manual that contains the table of planted bugs. */
const MANUAL = join(packageRoot(), 'scenarios/README.md');
const BEGIN = '<!-- planted: made by npm run planted -->';
const END = '<!-- end of planted -->';
/** Cell of a mode that did not find the bug, by outcome. The reasons are in results.json. */
const CELL_TEXT = { yes: '', other: 'other', no: 'no', 'not-measured': '–', error: 'error' } as const;

/**
 * Formats the results as a table in Markdown: a row for each bug that was hunted, and a line about the
 * original.
 */
export function resultsTable(results: Results, planted: readonly PlantedBug[]): string {
  const rows = results.bugs.flatMap(({ id, modes }) => {
    const bug = planted.find((one) => one.id === id);
    if (bug === undefined) return [];
    const cells = [`\`${id}\``, conditionOf(bug), ...MODE_NAMES.map((name) => modeCell(modes[name]))];
    return [`| ${cells.join(' | ')} |`];
  });
  const { runs, falseAlarms, notMeasured, errors, seconds } = results.original;
  const foundCount = results.bugs.filter((bug) => bug.found).length;
  return [
    `| bug | shown by | ${MODE_NAMES.join(' | ')} |`,
    `|---|---|${MODE_NAMES.map(() => '---|').join('')}`,
    ...rows,
    '',
    `${foundCount} of ${rows.length} bugs were found. Of ${runs} gates on the original (${seconds} s in total), ${falseAlarms} failed and ` +
      `${errors} ended with an error of the kit; ${notMeasured} were too short to measure every requirement.`,
  ].join('\n');
}

function conditionOf({ shownBy, faults }: PlantedBug): string {
  return shownBy === 'process' ? faults.map((name) => `\`${name}\``).join(', ') : shownBy;
}

function modeCell(result: ModeResult | undefined): string {
  if (result === undefined) return '–';
  return result.outcome === 'yes' ? `${result.requirement}, ${result.seconds} s` : CELL_TEXT[result.outcome];
}

/** Returns the part of the manual that is made from the results. */
export function readmeSection(manual = readFileSync(MANUAL, 'utf8')): string {
  const { start, end } = sectionBounds(manual);
  return manual.slice(start, end).trim();
}

/** Replaces the table in the manual. */
export function writeReadmeSection(table: string): void {
  const manual = readFileSync(MANUAL, 'utf8');
  const { start, end } = sectionBounds(manual);
  writeFileSync(MANUAL, `${manual.slice(0, start)}\n\n${table}\n\n${manual.slice(end)}`);
}

/**
 * Finds the characters between the markers BEGIN and END in the manual.
 * @throws KitError kit-failed when a marker is missing: the table would otherwise overwrite other text.
 */
function sectionBounds(manual: string): { start: number; end: number } {
  const start = manual.indexOf(BEGIN) + BEGIN.length;
  const end = manual.indexOf(END);
  if (start < BEGIN.length || end < start)
    throw new KitError('kit-failed', `${MANUAL}: expected the lines ${BEGIN} and ${END}, in this order`);
  return { start, end };
}
