import { accessSync, constants, existsSync, statSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { KitError, messageOf } from '../../../conformance/errors.js';
import { makeDirectories } from '../../host/directories.js';
import type { Outcome } from '../outcome.js';
import { plainStyle, styleFor } from '../style.js';
import { github } from './github.js';
import { junit } from './junit.js';
import type { Reporter } from './reporter.js';
import { tap } from './tap.js';

/** One object on one line. */
const json: Reporter = {
  name: 'json',
  stream: 'stdout',
  supportsFile: true,
  render: ({ data }) => `${JSON.stringify(data)}\n`,
};

/** The report for people. */
const list: Reporter = {
  name: 'list',
  stream: 'stderr',
  supportsFile: true,
  render: (outcome, style) => `${outcome.lines(style).join('\n')}\n`,
};

const REPORTERS: readonly Reporter[] = [list, json, junit, tap, github];
export const REPORTER_NAMES = REPORTERS.map(({ name }) => name);

/** A reporter, and the file that it writes; undefined: its stream. */
export interface ChosenReporter {
  reporter: Reporter;
  file: string | undefined;
}

/**
 * What `--reporter` asks for.
 * @param specs `name` or `name:file`; none: the list for people.
 * @param withJson `--json`: the object on stdout besides.
 * @throws KitError bad-usage for an unknown name, a file that cannot be written, or two that want stdout.
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

/** Tells an outcome in every form that was asked for. */
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
    throw new KitError('bad-usage', `--reporter ${spec}: expected one of ${REPORTER_NAMES.join(', ')}`);
  if (file === undefined) return { reporter, file };
  if (!reporter.supportsFile)
    throw new KitError('bad-usage', `--reporter ${spec}: expected no file, ${name} speaks to its CI alone`);
  if (file === '') throw new KitError('bad-usage', `--reporter ${spec}: expected a file after the colon`);
  checkWritable(spec, resolve(file));
  return { reporter, file: resolve(file) };
}

/** Told before the run, and not after minutes of it. */
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
