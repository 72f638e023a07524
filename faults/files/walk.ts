import { constants, type Dirent, lstatSync, readdirSync, readSync, writeSync } from 'node:fs';
import { join, relative } from 'node:path';
import { withFileBelow } from './open-below.js';

/**
 * Lists all regular files below a directory, relative to it and sorted. FIFOs, sockets and links are left
 * out. The list is empty when the directory is gone or is a link.
 */
export function regularFiles(directory: string): string[] {
  const files: string[] = [];
  const visit = (folder: string) => {
    for (const entry of entriesOf(folder)) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) visit(path);
      else if (entry.isFile()) files.push(relative(directory, path));
    }
  };
  if (lstatSync(directory, { throwIfNoEntry: false })?.isDirectory() === true) visit(directory);
  return files.sort();
}

/** Codes of a folder that was removed, or replaced by something else. */
const GONE_CODES: ReadonlySet<unknown> = new Set(['ENOENT', 'ENOTDIR', 'ELOOP']);

/** Lists a folder of a running target; empty when the target has removed or replaced it since it was listed. */
export function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch (error) {
    if (error instanceof Error && 'code' in error && GONE_CODES.has(error.code)) return [];
    throw error;
  }
}

/** Checks whether a path matches one of the globs: `*` and `?` stay within a name, `**` crosses folders. */
export function matchesAny(path: string, globs: readonly string[]): boolean {
  return globs.some((glob) => globToRegExp(glob).test(path));
}

function globToRegExp(glob: string): RegExp {
  const source = glob.replaceAll(/\*\*\/?|[*?]|[.+^${}()|[\]\\]/g, (token) => {
    if (token === '**/') return '(?:.*/)?';
    if (token === '**') return '.*';
    if (token === '*') return '[^/]*';
    if (token === '?') return '[^/]';
    return `\\${token}`;
  });
  return new RegExp(`^${source}$`);
}

/** Lists the files below `directory` that match one of the globs, relative to it. */
export function filesMatching(directory: string, globs: readonly string[]): string[] {
  if (globs.length === 0) return [];
  return regularFiles(directory).filter((path) => matchesAny(path, globs));
}

/**
 * Flips one bit of the byte at `offset` in an existing file of a directory under test.
 * @throws RangeError when the file has no such byte; ReplacedError when there is no such regular file.
 */
export function flipBit(directory: string, file: string, offset: number, bit: number): void {
  withFileBelow(directory, file, constants.O_RDWR, (fd) => {
    const byte = Buffer.alloc(1);
    if (readSync(fd, byte, 0, 1, offset) !== 1) {
      throw new RangeError(`${join(directory, file)} has no byte at offset ${offset}`);
    }
    byte[0] = (byte[0] ?? 0) ^ (1 << bit);
    writeSync(fd, byte, 0, 1, offset);
  });
}
