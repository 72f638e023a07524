import { accessSync, constants, existsSync, statSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { KitError, messageOf } from '../../../conformance/errors.js';
import { didYouMean } from '../../../conformance/nearest.js';
import { announceResult, log, printJson, printResult, warn } from '../../host/console.js';
import { makeDirectories } from '../../host/directories.js';
import { visibleJson, visibleLine } from '../../host/visible.js';
import type { Outcome } from '../outcome.js';
import { plainStyle, styleFor } from '../style.js';
import { html, perfetto } from './from-evidence.js';
import { github } from './github.js';
import { junit } from './junit.js';
import type { Reporter, TextReporter } from './reporter.js';
import { tap } from './tap.js';

/** Reporter that writes the object of `--json` on one line. */
const json: TextReporter = {
  name: 'json',
  stream: 'stdout',
  supportsFile: true,
  render: ({ data }) => `${visibleJson(JSON.stringify(data))}\n`,
};

/** Reporter that writes the report for people. */
const list: TextReporter = {
  name: 'list',
  stream: 'stderr',
  supportsFile: true,
  render: (outcome, style) => `${outcome.lines(style).map(visibleLine).join('\n')}\n`,
};

const REPORTERS: readonly Reporter[] = [list, json, junit, tap, github, html, perfetto];
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

/** Reports whether a chosen reporter is made from the evidence of the run, so that the evidence must be kept. */
export function needEvidence(chosen: readonly ChosenReporter[]): boolean {
  return chosen.some(({ reporter }) => 'write' in reporter);
}

/**
 * Reports an outcome in every chosen form. The reporters are independent: one that fails is one warning, and the others
 * still report. It never throws, because the verdict and its exit code must not depend on a report.
 */
export async function writeReports(outcome: Outcome, chosen: readonly ChosenReporter[]): Promise<void> {
  for (const { reporter, file } of chosen) {
    try {
      if ('write' in reporter) {
        if (outcome.evidence === undefined) throw new KitError('kit-failed', 'the run kept no evidence');
        log(`${reporter.name}: ${await reporter.write(outcome.evidence, file)}`);
        continue;
      }
      // The reporter of GitHub writes to stdout itself.
      if (file === undefined && reporter.stream === 'stdout') announceResult();
      const style = file === undefined ? styleFor(process[reporter.stream]) : plainStyle;
      const text = await reporter.render(outcome, style);
      if (file !== undefined) writeFileSync(file, text);
      else if (reporter.stream === 'stdout') printResult(text);
      else process.stderr.write(text);
    } catch (error) {
      const where = file === undefined ? '' : ` ${file}`;
      warn(`reporter ${reporter.name}:${where} not written: ${messageOf(error)}`);
    }
  }
}

/**
 * Reports the result of a command that has no reporters to choose: lines for people on stderr and, if wanted, one JSON
 * object on stdout. As in `writeReports`, a part that fails is one warning.
 * @param data the object; undefined prints none.
 */
export function reportResult(lines: () => readonly string[], data: unknown): void {
  attempt('list', () => {
    for (const line of lines()) log(line);
  });
  if (data !== undefined) attempt('json', () => printJson(data));
}

function attempt(name: string, report: () => void): void {
  try {
    report();
  } catch (error) {
    warn(`reporter ${name}: not written: ${messageOf(error)}`);
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
