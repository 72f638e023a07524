import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeWritableDirectory } from './directories.js';
import { readOwnFile } from './own-files.js';

/** File by which a directory of `--out` shows which run has made it. It is there while something of the run may be left. */
export const OUT_MARKER = '.plugpull-run';

/**
 * Makes the directory that the user has named for the evidence of a run, and marks it as that of the run.
 * @throws KitError bad-usage when it cannot be made or written to.
 */
export function markOutDirectory(dir: string, runId: string): void {
  makeWritableDirectory(dir, dir);
  const file = join(dir, OUT_MARKER);
  // Only this call may make the file: whoever made an existing one could hold it open for writing.
  rmSync(file, { force: true });
  writeFileSync(file, `${runId}\n`, { flag: 'wx', mode: 0o600 });
}

/** Reports whether a directory has the mark of the run, in a file of this user alone. */
export function isOutDirectoryOf(dir: string, runId: string): boolean {
  try {
    return readOwnFile(join(dir, OUT_MARKER)) === `${runId}\n`;
  } catch {
    return false;
  }
}

/** Removes the mark of a run of which nothing is left. The directory and its evidence stay. */
export function unmarkOutDirectory(dir: string, runId: string): void {
  if (isOutDirectoryOf(dir, runId)) rmSync(join(dir, OUT_MARKER), { force: true });
}
