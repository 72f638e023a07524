import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { KitError, messageOf } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { log, writeLines } from '../host/console.js';
import { stateDirectory } from '../host/state-directory.js';

/**
 * Smallest number of open files with which the kit works. The program alone opens about a hundred files at once while it
 * loads, and a gate has pipes, logs and connections of every service.
 */
const MIN_OPEN_FILES = 256;

/** What a person can do about an error of a system call, by its code. */
const REMEDIES: Readonly<Record<string, string>> = {
  EMFILE: 'expected a higher limit of open files: ulimit -n 1024',
  ENFILE: 'expected fewer open files on this machine: the kernel has no more',
  ENOMEM: 'expected more free memory, or a higher limit of it (ulimit -v)',
  EAGAIN: 'expected a higher limit of processes (ulimit -u)',
};
const SPACE_CODES: ReadonlySet<unknown> = new Set(['ENOSPC', 'EDQUOT', 'EROFS']);
const PERMISSION_CODES: ReadonlySet<unknown> = new Set(['EACCES', 'EPERM']);

/**
 * Checks that this process may open enough files. Too few would fail anywhere in a run, also where the kit talks to the
 * target, and a connection that the kit could not open must never look like a lost message.
 * @throws KitError kit-failed when the limit is too low.
 */
export function requireOpenFiles(): void {
  const limit = openFilesLimit();
  if (limit >= MIN_OPEN_FILES) return;
  throw new KitError(
    'kit-failed',
    `this process may open ${limit} files, expected at least ${MIN_OPEN_FILES}: ulimit -n 1024`,
  );
}

function openFilesLimit(): number {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
    return soft === undefined ? Number.POSITIVE_INFINITY : Number(soft);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/**
 * Reports an error on one line of stderr, and its stack when PLUGPULL_DEBUG is set.
 * @returns the exit code. It is never that of a violation: only a verdict is a violation.
 */
export function reportFailure(error: unknown): number {
  const isKitError = error instanceof KitError;
  const remedy = isKitError ? undefined : remedyOf(error);
  const isBug = !isKitError && remedy === undefined && !isWordedForPeople(error);
  const [what, hint] = isBug
    ? ['internal error: ', process.env.PLUGPULL_DEBUG ? '' : ' (PLUGPULL_DEBUG=1 shows the stack)']
    : ['', remedy === undefined ? '' : `; ${remedy}`];
  log(`plugpull: ${what}${messageOf(error)}${hint}`);
  if (process.env.PLUGPULL_DEBUG && error instanceof Error) writeLines(process.stderr, `${error.stack}\n`);
  return isKitError ? error.exitCode : EXIT_CODES.kitFailed;
}

/** Reports whether an error has a class of the kit: its message says what happened and where. */
function isWordedForPeople(error: unknown): boolean {
  return error instanceof Error && error.name !== 'Error' && !(error.name in globalThis);
}

/** Returns what to do about an error of a system call; undefined for a bug of the kit. */
function remedyOf(error: unknown): string | undefined {
  if (!(error instanceof Error && 'code' in error && 'syscall' in error)) return undefined;
  const { code } = error;
  if (SPACE_CODES.has(code) || ('path' in error && PERMISSION_CODES.has(code))) {
    return `expected room, and the right to write, in --out, in ${stateDirectory()} (PLUGPULL_STATE) and in ${tmpdir()}`;
  }
  return REMEDIES[`${code}`];
}
