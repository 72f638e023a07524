import { visibleJson, visibleLine } from './visible.js';

/**
 * Prints a line of progress or prose to stderr. Every command prints through this file, so that no text of a stranger
 * reaches a terminal or a CI system as it is.
 */
export function log(line: string): void {
  process.stderr.write(`${visibleLine(line)}\n`);
}

/** Prints a line of data to stdout. */
export function print(line: string): void {
  process.stdout.write(`${visibleLine(line)}\n`);
}

/** Prints a result as one JSON object on one line of stdout. */
export function printJson(data: unknown): void {
  process.stdout.write(`${visibleJson(JSON.stringify(data))}\n`);
}

/** Writes prose of several lines, such as a help text. Each line is escaped as by `log`. */
export function writeLines(stream: NodeJS.WritableStream, text: string): void {
  stream.write(text.split('\n').map(visibleLine).join('\n'));
}

/** Lets the reader of our output stop reading: a closed pipe ends the output, not the work. Other stream errors are thrown. */
export function ignoreClosedPipes(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
    });
  }
}
