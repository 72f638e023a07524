import { once } from 'node:events';
import { QueueError } from '../platform/errors.js';

/** Prints a value to stdout as one line of JSON, message numbers as decimal text. Waits for a slow reader. */
export async function printLine(value: unknown): Promise<void> {
  const text = JSON.stringify(value, (_, part: unknown) =>
    typeof part === 'bigint' ? part.toString() : part,
  );
  if (!process.stdout.write(`${text}\n`)) await once(process.stdout, 'drain');
}

/** Prints a failure to stderr, in one line if it is not an internal error. @returns the exit code */
export function printFailure(failure: unknown): number {
  if (failure instanceof QueueError) {
    printErrorLine(failure.message);
    return failure.exitCode;
  }
  if (isSystemError(failure)) {
    printErrorLine(failure.message);
    return 2;
  }
  printErrorLine(
    `internal error: ${failure instanceof Error ? (failure.stack ?? failure.message) : String(failure)}`,
  );
  return 4;
}

/** Prints one line to stderr with the name of the program in front. */
export function printErrorLine(message: string): void {
  process.stderr.write(`plugpull queue: ${message}\n`);
}

/** Returns whether a system call failed, for example for lack of permission, directory or space. */
function isSystemError(failure: unknown): failure is NodeJS.ErrnoException {
  return failure instanceof Error && 'syscall' in failure && 'code' in failure;
}
