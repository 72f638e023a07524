import { lstatSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { entriesOf } from './walk.js';

/**
 * Upper bound for the entries that `changedSince` examines. A directory with more of them counts as changed:
 * a target that keeps so many files there keeps its messages there too.
 */
const MAX_ENTRIES = 20_000;

/**
 * Reads the clock by which the kernel stamps files, in ms since 1970. It is coarser than `Date.now()` and runs up to
 * 10 ms behind it: a file that is written right after `Date.now()` can have an earlier time stamp.
 * @param scratchFile path of a file that is overwritten.
 */
export function fileClockMs(scratchFile: string): number {
  writeFileSync(scratchFile, '');
  return statSync(scratchFile).ctimeMs;
}

/**
 * Finds a regular file or directory that has changed since `sinceMs` of `fileClockMs`: a file that was written, made,
 * removed or renamed. It compares the time of the last change of the inode, which no program can set. A write through
 * a mapping changes that time when the page was clean, so after each sync and after each start. Sockets and FIFOs are
 * left out, because what is written to them is stored nowhere.
 *
 * The search ends at the first change. Directories come before files: a new or renamed file changes its directory.
 * @param hint path that an earlier call returned; it is examined first.
 * @returns the path relative to `directory` (`.` for the directory itself); undefined if nothing has changed. Also `.`
 *   if the directory cannot be read, or has too many entries: then nothing can be concluded.
 */
export function changedSince(directory: string, sinceMs: number, hint?: string): string | undefined {
  const hasChanged = (path: string) => {
    const stats = lstatSync(join(directory, path), { throwIfNoEntry: false });
    return stats !== undefined && (stats.isFile() || stats.isDirectory()) && stats.ctimeMs >= sinceMs;
  };
  try {
    // The disk of a target in the lab VM, for example, is not a directory of this machine.
    if (!isDirectory(directory)) return '.';
    if (hint !== undefined && hasChanged(hint)) return hint;
    const files: string[] = [];
    const directories = ['.'];
    for (let folder = directories.pop(); folder !== undefined; folder = directories.pop()) {
      if (hasChanged(folder)) return folder;
      for (const entry of entriesOf(join(directory, folder))) {
        const path = join(folder, entry.name);
        if (entry.isDirectory()) directories.push(path);
        else if (entry.isFile()) files.push(path);
        if (files.length + directories.length > MAX_ENTRIES) return '.';
      }
    }
    return files.find(hasChanged);
  } catch {
    // The filesystem has shut itself down after an error, for example.
    return '.';
  }
}

/**
 * Lists the regular files that have changed since `sinceMs` of `fileClockMs`, the last changed first, relative to
 * `directory`; undefined if the directory cannot be read, or has too many entries.
 */
export function filesChangedSince(directory: string, sinceMs: number): string[] | undefined {
  try {
    if (!isDirectory(directory)) return undefined;
    const changed: { path: string; changedMs: number }[] = [];
    const directories = ['.'];
    let entries = 0;
    for (let folder = directories.pop(); folder !== undefined; folder = directories.pop()) {
      for (const entry of entriesOf(join(directory, folder))) {
        if (++entries > MAX_ENTRIES) return undefined;
        const path = join(folder, entry.name);
        if (entry.isDirectory()) directories.push(path);
        const stats = entry.isFile()
          ? lstatSync(join(directory, path), { throwIfNoEntry: false })
          : undefined;
        if (stats !== undefined && stats.ctimeMs >= sinceMs) changed.push({ path, changedMs: stats.ctimeMs });
      }
    }
    return changed.sort((one, other) => other.changedMs - one.changedMs).map(({ path }) => path);
  } catch {
    return undefined;
  }
}

/** Reports whether a directory is there, and is no link to another one. */
function isDirectory(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
