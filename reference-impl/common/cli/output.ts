import { once } from 'node:events';
import { relative } from 'node:path';
import { QueueError } from '../platform/errors.js';
import { visible, visibleJson } from '../platform/visible.js';

/** Codes of system calls that failed because this process or this machine has no more of something. */
const EXHAUSTED: readonly string[] = ['EMFILE', 'ENFILE', 'ENOMEM'];

/** Prints a value to stdout as one line of JSON, message numbers as decimal text. Waits for a slow reader. */
export async function printLine(value: unknown): Promise<void> {
  const text = JSON.stringify(value, (_, part: unknown) =>
    typeof part === 'bigint' ? part.toString() : part,
  );
  if (!process.stdout.write(`${visibleJson(text)}\n`)) await once(process.stdout, 'drain');
}

/**
 * Waits until the reader has taken what was printed. `process.exit` drops what a pipe, whose reader is slow, has not taken:
 * everything after the first 64 KiB.
 */
export async function waitForReader(): Promise<void> {
  for (const stream of [process.stdout, process.stderr])
    await new Promise<void>((resolve) => stream.write('', () => resolve()));
}

/**
 * Prints a failure to stderr on one line, and the stack of an internal error when PLUGPULL_DEBUG is set.
 * @returns the exit code
 */
export function printFailure(failure: unknown): number {
  if (failure instanceof QueueError) {
    printErrorLine(failure.message);
    return failure.exitCode;
  }
  if (isSystemError(failure)) {
    printErrorLine(failure.message);
    return EXHAUSTED.includes(failure.code ?? '') ? 4 : 2;
  }
  printErrorLine(`internal error: ${failure instanceof Error ? failure.message : String(failure)}`);
  if (process.env.PLUGPULL_DEBUG && failure instanceof Error)
    for (const line of `${failure.stack}`.split('\n')) printErrorLine(line);
  return 4;
}

/** Prints one line to stderr with the name of the program in front. Foreign text in it is escaped. */
export function printErrorLine(message: string): void {
  process.stderr.write(`${visible(`plugpull queue: ${message}`)}\n`);
}

/** Returns whether a system call failed, for example for lack of permission, directory or space. */
function isSystemError(failure: unknown): failure is NodeJS.ErrnoException {
  return failure instanceof Error && 'syscall' in failure && 'code' in failure;
}

/**
 * Returns how the user starts this program, for help texts and for commands to type: as the caller says, otherwise by Node.
 */
export function commandOfProgram(): string {
  const { PLUGPULL_QUEUE_COMMAND: command } = process.env;
  if (command) return command;
  const path = relative(process.cwd(), process.argv[1] ?? '');
  return `node ${/^[\w./@+-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`}`;
}
