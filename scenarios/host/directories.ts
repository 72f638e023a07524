import { accessSync, constants, existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';

/**
 * Makes a directory and those above it that are missing. Not by mkdir's `recursive`: Node never returns from that where
 * the kernel answers ENOENT though the folder above is there, as everywhere below /proc.
 * @throws Error of the system call that failed.
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

/** Another process may make it at the same moment. */
function makeIfMissing(directory: string): void {
  try {
    mkdirSync(directory);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
}

/**
 * The same for a directory that somebody has named, which is then there and can be written to.
 * @param label how it was named, as `--out DIR`.
 * @throws KitError bad-usage
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
