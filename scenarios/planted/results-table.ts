import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../host/version.js';
import type { PlantedBug } from './definition.js';
import { MODE_NAMES, type ModeResult } from './mode.js';
import type { Results } from './results.js';

const README = join(packageRoot(), 'README.md');
const BEGIN = '<!-- planted: made by npm run planted -->';
const END = '<!-- end of planted -->';
/** Longer stories stand in the bug's own file. */
const CELL_TEXT = { yes: '', other: 'other', no: 'no', 'not-measured': '–', error: 'error' } as const;

/** The results as a table in Markdown, one row for each bug that was hunted, and a line about the original. */
export function resultsTable(results: Results, planted: readonly PlantedBug[]): string {
  const rows = results.bugs.flatMap(({ id, modes }) => {
    const bug = planted.find((one) => one.id === id);
    if (bug === undefined) return [];
    const cells = [`\`${id}\``, conditionOf(bug), ...MODE_NAMES.map((name) => modeCell(modes[name]))];
    return [`| ${cells.join(' | ')} |`];
  });
  const { runs, falseAlarms, notMeasured, errors, seconds } = results.original;
  const found = results.bugs.filter((bug) => bug.found).length;
  return [
    `| bug | shown by | ${MODE_NAMES.join(' | ')} |`,
    `|---|---|${MODE_NAMES.map(() => '---|').join('')}`,
    ...rows,
    '',
    `${found} of ${rows.length} bugs were found. Of ${runs} gates on the original (${seconds} s in all), ${falseAlarms} turned red and ` +
      `${errors} ended with an error of the kit; ${notMeasured} were too short to measure every requirement.`,
  ].join('\n');
}

function conditionOf({ shownBy, faults }: PlantedBug): string {
  return shownBy === 'process' ? faults.map((name) => `\`${name}\``).join(', ') : shownBy;
}

function modeCell(result: ModeResult | undefined): string {
  if (result === undefined) return '–';
  return result.found === 'yes' ? `${result.requirement}, ${result.seconds} s` : CELL_TEXT[result.found];
}

/** The part of the README that is made from the results. */
export function readmeSection(readme = readFileSync(README, 'utf8')): string {
  return readme.slice(readme.indexOf(BEGIN) + BEGIN.length, readme.indexOf(END)).trim();
}

/** Puts the table into the README. */
export function writeReadmeSection(table: string): void {
  const text = readFileSync(README, 'utf8');
  const [before, after] = [text.indexOf(BEGIN) + BEGIN.length, text.indexOf(END)];
  writeFileSync(README, `${text.slice(0, before)}\n\n${table}\n\n${text.slice(after)}`);
}
