import { once } from 'node:events';
import { QueueError } from '../platform/errors.js';

/** Data goes to stdout, one JSON object a line; message numbers as decimal text. Waits for a slow reader. */
export async function printLine(value: unknown): Promise<void> {
  const text = JSON.stringify(value, (_, part: unknown) =>
    typeof part === 'bigint' ? part.toString() : part,
  );
  if (!process.stdout.write(`${text}\n`)) await once(process.stdout, 'drain');
}

/** Says on stderr what went wrong, in one line where a person can do something about it. Returns the exit code. */
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

export function printErrorLine(message: string): void {
  process.stderr.write(`plugpull queue: ${message}\n`);
}

/** The system said no: no permission, no such directory, no space. */
function isSystemError(failure: unknown): failure is NodeJS.ErrnoException {
  return failure instanceof Error && 'syscall' in failure && 'code' in failure;
}
