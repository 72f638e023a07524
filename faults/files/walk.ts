import { closeSync, type Dirent, openSync, readdirSync, readSync, writeSync } from 'node:fs';
import { join, relative } from 'node:path';

/**
 * Lists all regular files below a directory, relative to it and sorted. FIFOs, sockets and links are left
 * out.
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
  visit(directory);
  return files.sort();
}

/** Lists a folder of a running target; empty when the target has removed it since it was listed. */
export function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
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
 * Flips one bit of the byte at `offset` in an existing file.
 * @throws RangeError when the file has no such byte.
 */
export function flipBit(path: string, offset: number, bit: number): void {
  const file = openSync(path, 'r+');
  try {
    const byte = Buffer.alloc(1);
    if (readSync(file, byte, 0, 1, offset) !== 1) {
      throw new RangeError(`${path} has no byte at offset ${offset}`);
    }
    byte[0] = (byte[0] ?? 0) ^ (1 << bit);
    writeSync(file, byte, 0, 1, offset);
  } finally {
    closeSync(file);
  }
}
