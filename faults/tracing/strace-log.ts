import { closeSync, openSync, readSync, statSync } from 'node:fs';

/**
 * One system call of a strace log (`strace -f -s 0 -y`). The two halves of an interrupted call are joined.
 */
export interface Call {
  /** Id of the thread that made the call. */
  thread: number;
  name: string;
  args: string[];
  /** The text behind ` = `; undefined when the call had not returned at the end of the log. */
  result: string | undefined;
  /** Number of the line on which the call begins, from 1. Calls are ordered by it. */
  entry: number;
  /**
   * Offset in the log, in bytes, of the end of the line on which the call returned; Infinity when the call
   * did not return.
   */
  doneOffset: number;
}

/**
 * Part of a log that is read, in bytes from its start. A call takes ten times its text in memory, and the log of one
 * fault has some megabytes.
 */
export const MAX_READ_BYTES = 64 << 20;

/**
 * Reads a log, one byte per character, up to `maxBytes`; empty when there is none. Its last line may be incomplete.
 */
export function readStraceLog(path: string, maxBytes = MAX_READ_BYTES): string {
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (size === 0) return '';
  const fd = openSync(path, 'r');
  try {
    const bytes = Buffer.allocUnsafe(Math.min(size, maxBytes));
    return bytes.toString('latin1', 0, readSync(fd, bytes, 0, bytes.length, 0));
  } finally {
    closeSync(fd);
  }
}

const COMPLETE = /^(\d+) +(\w+)\((.*)\) += (.*)$/;
const UNFINISHED = /^(\d+) +(\w+)\((.*?) ?<unfinished \.\.\.>$/;
const RESUMED = /^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (.*)$/;

/**
 * Parses a log. Lines that are not calls (signals, exits) are left out. An incomplete last line, as a kill
 * leaves it, is a call that has begun.
 * @param text the log, one byte per character (latin1).
 */
export function parseStraceLog(text: string): Call[] {
  const calls: Call[] = [];
  const begun = new Map<string, Call & { front: string }>();
  let offset = 0;
  let entry = 0;
  for (const line of text.split('\n')) {
    offset += line.length + 1;
    entry++;
    const complete = COMPLETE.exec(line);
    if (complete) {
      const [, thread, name = '', args = '', result] = complete;
      calls.push(makeCall(Number(thread), name, args, result, entry, offset));
      continue;
    }
    const resumed = RESUMED.exec(line);
    if (resumed) {
      const [, thread = '', name = '', rest = '', result] = resumed;
      const half = begun.get(`${thread} ${name}`);
      begun.delete(`${thread} ${name}`);
      if (half === undefined) continue;
      Object.assign(half, { args: splitArguments(half.front + rest), result, doneOffset: offset });
      continue;
    }
    const half = UNFINISHED.exec(line) ?? /^(\d+) +(\w+)\((.*)$/.exec(line);
    if (half) {
      const [, thread = '', name = '', front = ''] = half;
      const call = {
        ...makeCall(Number(thread), name, front, undefined, entry, Number.POSITIVE_INFINITY),
        front,
      };
      begun.set(`${thread} ${name}`, call);
      calls.push(call);
    }
  }
  return calls;
}

function makeCall(
  thread: number,
  name: string,
  args: string,
  result: string | undefined,
  entry: number,
  doneOffset: number,
): Call {
  return { thread, name, args: splitArguments(args), result, entry, doneOffset };
}

/** Splits arguments at commas, except commas in a string, in a path of `-y` or in brackets. */
export function splitArguments(text: string): string[] {
  const parts: string[] = [];
  let part = '';
  let depth = 0;
  let quoted = false;
  let inPath = false;
  for (let at = 0; at < text.length; at++) {
    const char = text[at] ?? '';
    if (char === '\\' && (quoted || inPath)) {
      part += char + (text[++at] ?? '');
      continue;
    }
    if (char === '"' && !inPath) quoted = !quoted;
    else if (!quoted && char === '<') inPath = true;
    else if (!quoted && char === '>') inPath = false;
    else if (!quoted && !inPath && '[{('.includes(char)) depth++;
    else if (!quoted && !inPath && ']})'.includes(char)) depth--;
    if (char === ',' && !quoted && !inPath && depth === 0) {
      parts.push(part.trim());
      part = '';
    } else part += char;
  }
  if (part.trim() !== '' || parts.length > 0) parts.push(part.trim());
  return parts;
}

/**
 * Parses a file descriptor with its path, as `-y` prints it: `17</data/file>`. Returns undefined for any
 * other text. `deleted` is true when the file has no name any more, or never had one: `17</data/file>(deleted)`.
 */
export function descriptorOf(
  text: string | undefined,
): { fd: number; path: string; deleted: boolean } | undefined {
  const match = /^(-?\d+|AT_FDCWD)<(.*?)>(\(deleted\))?$/.exec(text ?? '');
  if (!match) return undefined;
  const fd = match[1] === 'AT_FDCWD' ? -100 : Number(match[1]);
  return { fd, path: unescapePath(match[2] ?? ''), deleted: match[3] !== undefined };
}

/** Parses a path in double quotes. Returns undefined for any other text. */
export function quotedPath(text: string | undefined): string | undefined {
  const match = /^"(.*)"$/.exec(text ?? '');
  return match ? unescapePath(match[1] ?? '') : undefined;
}

const ESCAPES: Record<string, number> = { n: 10, t: 9, r: 13, v: 11, f: 12 };

/** Undoes strace's escapes (octal and C), and decodes the bytes as UTF-8. */
function unescapePath(text: string): string {
  const bytes = text.replaceAll(/\\([0-7]{1,3}|.)/g, (_, code: string) => {
    if (/^[0-7]/.test(code)) return String.fromCharCode(Number.parseInt(code, 8));
    return String.fromCharCode(ESCAPES[code] ?? code.charCodeAt(0));
  });
  return Buffer.from(bytes, 'latin1').toString('utf8');
}
