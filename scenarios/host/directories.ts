import { accessSync, chmodSync, constants, existsSync, mkdirSync, mkdtempSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';

/**
 * Makes a directory and its missing parents. It does not use mkdir's `recursive`: Node never returns from
 * that call when the kernel answers ENOENT although the parent exists, as everywhere below /proc.
 * @throws Error of the system call that failed, or when the path is not a directory.
 */
export function makeDirectories(path: string): void {
  const missing: string[] = [];
  for (
    let ancestor = path;
    !existsSync(ancestor) && dirname(ancestor) !== ancestor;
    ancestor = dirname(ancestor)
  )
    missing.push(ancestor);
  for (const directory of missing.reverse()) makeIfMissing(directory);
  if (!statSync(path).isDirectory()) throw new Error(`${path} is not a directory`);
}

/**
 * Makes one directory. It accepts an existing directory, because another process may make it at the same
 * moment.
 */
function makeIfMissing(directory: string): void {
  try {
    mkdirSync(directory);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
}

/**
 * Makes a directory that the user has named, with its missing parents, and checks that it can be written to.
 * @param label the user's own text, such as `--out DIR`; it begins the error message.
 * @throws KitError bad-usage when it cannot be made or written to.
 */
export function makeWritableDirectory(path: string, label: string): void {
  try {
    makeDirectories(path);
    accessSync(path, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new KitError('bad-usage', `${label}: expected a directory to write to: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/**
 * Makes a directory with a unique name in `parent` and returns its path. A process of any user may pass
 * through it: a target that gives up root (PostgreSQL, Exim) must reach its data below it. `mkdtemp` alone
 * makes a directory of mode 0700.
 */
export function makeUniqueDirectory(parent: string, prefix: string): string {
  const path = mkdtempSync(join(parent, prefix));
  chmodSync(path, PASSAGE_MODE);
  return path;
}

/**
 * Mode of a directory that other users may pass through and not list. A service of the target that gives up root
 * needs the way to its data; what strangers' images and bundles hold is nobody else's business.
 */
export const PASSAGE_MODE = 0o711;

/** Makes a directory, with its missing parents, that other users may pass through and not list. */
export function makePassage(path: string): void {
  makeDirectories(path);
  chmodSync(path, PASSAGE_MODE);
}

/**
 * Lets every directory that this process makes from now on be passed through by any user, whatever umask the
 * caller has set. Directories above `{data}` need it; see `makeUniqueDirectory`. It gives no right to list a
 * directory or to read a file.
 */
export function allowPassingThrough(): void {
  process.umask(process.umask() & ~0o011);
}

/** Reports whether other users may not pass through a directory. False for a path that this user may not look at. */
function isClosed(path: string): boolean {
  try {
    const stat = statSync(path);
    return stat.isDirectory() && (stat.mode & 0o001) === 0;
  } catch {
    return false;
  }
}

/** Returns the directory nearest to `path`, or `path` itself, that other users may not pass through. */
export function closedDirectory(path: string): string | undefined {
  for (let directory = path; ; directory = dirname(directory)) {
    if (isClosed(directory)) return directory;
    if (dirname(directory) === directory) return undefined;
  }
}
