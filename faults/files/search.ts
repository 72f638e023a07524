import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { openBelow } from './open-below.js';

/** Upper bound of the bytes that one search reads. */
const MAX_READ_BYTES = 16 * 2 ** 20;

/** What a search has found. */
export interface SearchResult {
  /** The first file that has what was searched for; undefined when none has it. */
  found: string | undefined;
  /** True when every byte was looked at. Without a find, an incomplete search shows nothing. */
  isComplete: boolean;
}

/**
 * Searches regular files, in their order, until one matches. Of a file that is larger than what may still be read, it
 * reads the end: files of messages mostly grow there. A file that cannot be read makes the search incomplete.
 * @param matches returns whether a part of a file is what is searched for.
 * @param directory the directory under test, to which the paths are relative; undefined: the paths are absolute.
 */
export function searchFiles(
  paths: Iterable<string>,
  matches: (bytes: Buffer) => boolean,
  maxBytes = MAX_READ_BYTES,
  directory?: string,
): SearchResult {
  let leftBytes = maxBytes;
  let isComplete = true;
  for (const path of paths) {
    const part = readEnd(path, leftBytes, directory);
    if (part === undefined || !part.isWhole) isComplete = false;
    if (part === undefined) continue;
    if (matches(part.bytes)) return { found: path, isComplete };
    leftBytes -= part.bytes.length;
  }
  return { found: undefined, isComplete };
}

/**
 * Reads the last bytes of a regular file, at most `maxBytes`; undefined when it cannot be read.
 * @param directory the directory under test, to which the path is relative, and which no link may leave; undefined: the
 *   path is absolute.
 */
export function readEnd(
  path: string,
  maxBytes: number,
  directory?: string,
): { bytes: Buffer; isWhole: boolean } | undefined {
  let fd: number | undefined;
  try {
    fd =
      directory === undefined
        ? // Without O_NONBLOCK, a FIFO that has taken the place of the file would block the kit.
          openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
        : openBelow(directory, path, constants.O_RDONLY);
    const stats = fstatSync(fd);
    if (!stats.isFile()) return undefined;
    const from = Math.max(0, stats.size - maxBytes);
    const bytes = Buffer.alloc(stats.size - from);
    const count = readSync(fd, bytes, 0, bytes.length, from);
    return { bytes: bytes.subarray(0, count), isWhole: from === 0 };
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
