import { closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { stripVTControlCharacters } from 'node:util';

/** Upper bounds of a tail, and the byte of the log at which it begins at the earliest. */
export interface TailOptions {
  maxLines: number;
  maxLineChars: number;
  /** Default: 0. */
  fromByte?: number;
}

/**
 * Number of bytes that are read from the end of a log, because a target may write logs and lines of any
 * length.
 */
const TAIL_BYTES = 64 * 1024;

/**
 * Returns the last lines of a log without empty lines and without control characters, such as the colours of
 * a terminal. Returns no line when the log does not exist.
 */
export function readLogTail(path: string, { maxLines, maxLineChars, fromByte = 0 }: TailOptions): string[] {
  let log: number;
  try {
    // A target may put a link or a FIFO in the place of its log. The open of a FIFO would wait for a writer.
    log = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    return [];
  }
  try {
    if (!fstatSync(log).isFile()) return [];
    const bytes = Buffer.alloc(TAIL_BYTES);
    const startByte = Math.max(fromByte, fstatSync(log).size - TAIL_BYTES);
    const text = bytes.subarray(0, readSync(log, bytes, 0, TAIL_BYTES, startByte)).toString();
    const lines = text.split('\n').map(withoutControlCharacters);
    return lines
      .filter((line) => line.trim() !== '')
      .slice(-maxLines)
      .map((line) => line.slice(0, maxLineChars));
  } finally {
    closeSync(log);
  }
}

/** Returns the size of a file in bytes; 0 when it does not exist. */
export function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function withoutControlCharacters(line: string): string {
  const visible = [...stripVTControlCharacters(line)].filter((char) => char >= ' ' && char !== '\u007f');
  return visible.join('');
}
