import { accessSync, constants, existsSync, statSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { KitError, messageOf } from '../../../conformance/errors.js';
import { didYouMean } from '../../../conformance/nearest.js';
import { makeDirectories } from '../../host/directories.js';
import { visibleJson, visibleLine } from '../../host/visible.js';
import type { Outcome } from '../outcome.js';
import { plainStyle, styleFor } from '../style.js';
import { github } from './github.js';
import { junit } from './junit.js';
import type { Reporter } from './reporter.js';
import { tap } from './tap.js';

/** Reporter that writes the object of `--json` on one line. */
const json: Reporter = {
  name: 'json',
  stream: 'stdout',
  supportsFile: true,
  render: ({ data }) => `${visibleJson(JSON.stringify(data))}\n`,
};

/** Reporter that writes the report for people. */
const list: Reporter = {
  name: 'list',
  stream: 'stderr',
  supportsFile: true,
  render: (outcome, style) => `${outcome.lines(style).map(visibleLine).join('\n')}\n`,
};

const REPORTERS: readonly Reporter[] = [list, json, junit, tap, github];
/** Names that `--reporter` accepts. */
export const REPORTER_NAMES = REPORTERS.map(({ name }) => name);

/** A reporter, and the absolute path of the file that it writes; undefined means its stream. */
export interface ChosenReporter {
  reporter: Reporter;
  file: string | undefined;
}

/**
 * Chooses the reporters that `--reporter` names, and checks that their files can be written to.
 * @param specs `name` or `name:file` each; undefined means the report for people.
 * @param withJson whether `--json` is set, which adds the object on stdout.
 * @throws KitError bad-usage for an unknown name, a file that cannot be written, or two reporters that
 *   write to stdout.
 */
export function chooseReporters(specs: readonly string[] | undefined, withJson: boolean): ChosenReporter[] {
  const chosen = (specs ?? ['list']).map(parseReporter);
  if (withJson && !chosen.some(({ reporter, file }) => reporter === json && file === undefined))
    chosen.push({ reporter: json, file: undefined });
  const toStdout = chosen.filter(({ reporter, file }) => file === undefined && reporter.stream === 'stdout');
  if (toStdout.length > 1) {
    const names = toStdout.map(({ reporter }) => reporter.name).join(' and ');
    throw new KitError(
      'bad-usage',
      `--reporter: ${names} would both write to stdout; expected a file for one, such as junit:report.xml`,
    );
  }
  return chosen;
}

/**
 * Reports an outcome in every chosen form.
 * @throws KitError kit-failed when a file cannot be written.
 */
export async function writeReports(outcome: Outcome, chosen: readonly ChosenReporter[]): Promise<void> {
  for (const { reporter, file } of chosen) {
    const stream = process[reporter.stream];
    const text = await reporter.render(outcome, file === undefined ? styleFor(stream) : plainStyle);
    if (file === undefined) stream.write(text);
    else writeReportFile(file, text);
  }
}

function parseReporter(spec: string): ChosenReporter {
  const [name = '', ...rest] = spec.split(':');
  const file = rest.length === 0 ? undefined : rest.join(':');
  const reporter = REPORTERS.find((one) => one.name === name);
  if (reporter === undefined)
    throw new KitError(
      'bad-usage',
      `--reporter ${spec}: expected one of ${REPORTER_NAMES.join(', ')}${didYouMean(name, REPORTER_NAMES)}`,
    );
  if (file === undefined) return { reporter, file };
  if (!reporter.supportsFile)
    throw new KitError('bad-usage', `--reporter ${spec}: expected no file, ${name} writes to its CI only`);
  if (file === '') throw new KitError('bad-usage', `--reporter ${spec}: expected a file after the colon`);
  checkWritable(spec, resolve(file));
  return { reporter, file: resolve(file) };
}

/** Checks the file before the run, so that a wrong path is reported at once and not after minutes. */
function checkWritable(spec: string, file: string): void {
  try {
    makeDirectories(dirname(file));
    accessSync(existsSync(file) ? file : dirname(file), constants.W_OK);
  } catch (error) {
    throw new KitError('bad-usage', `--reporter ${spec}: expected a file to write: ${messageOf(error)}`, {
      cause: error,
    });
  }
  if (existsSync(file) && statSync(file).isDirectory())
    throw new KitError('bad-usage', `--reporter ${spec}: expected a file, and it is a directory`);
}

function writeReportFile(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    throw new KitError('kit-failed', `${file}: the report cannot be written: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
