import { messageOf } from '../../conformance/errors.js';
import { visible, visibleJson, visibleLine } from './visible.js';

/**
 * Prints a line of progress or prose to stderr. Every command prints through this file, so that no text of a stranger
 * reaches a terminal or a CI system as it is.
 */
export function log(line: string): void {
  const erase = shownStatus === '' ? '' : ERASE_LINE;
  shownStatus = '';
  lastLineMs = performance.now();
  process.stderr.write(`${erase}${visibleLine(line)}\n`);
}

/** Goes to the start of the line and erases it. */
const ERASE_LINE = '\r\x1b[K';
let lastLineMs = performance.now();
/** State that the terminal shows in its last line; empty: none. The next line takes its place. */
let shownStatus = '';

/** Shows the state of a command on stderr; see `StatusLine`. */
export const statusOutput = {
  isTerminal: process.stderr.isTTY === true && process.env.TERM !== 'dumb',
  silentMs: () => performance.now() - lastLineMs,
  print: log,
  rewrite(text: string): void {
    const line = visible(text).slice(0, Math.max(0, (process.stderr.columns ?? 80) - 1));
    if (line === shownStatus) return;
    shownStatus = line;
    process.stderr.write(`${ERASE_LINE}${line}`);
  },
};

/** Prints a line of data to stdout. */
export function print(line: string): void {
  process.stdout.write(`${visibleLine(line)}\n`);
}

/** Prints a result as one JSON object on one line of stdout. */
export function printJson(data: unknown): void {
  printResult(`${visibleJson(JSON.stringify(data))}\n`);
}

/** Writes prose of several lines, such as a help text. Each line is escaped as by `log`. */
export function writeLines(stream: NodeJS.WritableStream, text: string): void {
  stream.write(text.split('\n').map(visibleLine).join('\n'));
}

/** Prints a warning: something failed that changes neither the verdict nor the exit code. */
export function warn(line: string): void {
  log(`warning: ${line}`);
}

let isResultOnStdout = false;

/** Says that a result comes on stdout: from now on a closed pipe is worth a warning too. */
export function announceResult(): void {
  isResultOnStdout = true;
}

/**
 * Prints a result on stdout. When stdout cannot take it, as with a full disk or a closed pipe, there is one warning on
 * stderr.
 */
export function printResult(text: string): void {
  announceResult();
  process.stdout.write(text);
}

/**
 * Ends the process after the readers of stdout and stderr have taken what was printed. `process.exit` alone drops what a
 * pipe, whose reader is slow, has not taken: everything after the first 64 KiB.
 */
export async function exitAfterOutput(code: number): Promise<never> {
  for (const stream of [process.stdout, process.stderr])
    await new Promise<void>((resolve) => stream.write('', () => resolve()));
  process.exit(code);
}

/**
 * Keeps the work and its exit code independent of the output streams. A reader may stop reading (EPIPE), and the file
 * behind stdout may be on a full disk. The output ends there, the work goes on. Lost data is worth one warning.
 */
export function ignoreFailedStreams(): void {
  let isWarned = false;
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (isWarned || (error.code === 'EPIPE' && !isResultOnStdout)) return;
    isWarned = true;
    warn(`stdout: the report is not complete: ${messageOf(error)}`);
  });
  // A warning about stderr has nowhere to go.
  process.stderr.on('error', () => {});
}
