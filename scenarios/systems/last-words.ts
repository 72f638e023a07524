import { closeSync, fstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';

/** What one service of a target, or one of its commands, said last. */
export interface LastWords {
  /** The log, in the directory of the evidence. */
  file: string;
  lines: string[];
}

/** Few, so that a CI run that repeats the heads of what failed shows them whole. */
const MOST_LINES = 5;
const LONGEST_LINE = 300;
/** So much of the end of a log is read: a target may have said anything, and any amount of it. */
const TAIL_BYTES = 64 * 1024;

/** The ends of all logs of the last round that left evidence there; none of those that are empty. */
export function lastWords(evidence: string): LastWords[] {
  const numbers = namesIn(evidence).flatMap((name) => /^round-(\d+)$/.exec(name)?.[1] ?? []);
  if (numbers.length === 0) return [];
  const logs = join(`round-${Math.max(...numbers.map(Number))}`, 'logs');
  return namesIn(join(evidence, logs))
    .map((name) => ({ file: join(logs, name), lines: endOf(join(evidence, logs, name)) }))
    .filter(({ lines }) => lines.length > 0);
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir).sort();
  } catch {
    // A round that never came to its logs has none.
    return [];
  }
}

function endOf(path: string): string[] {
  const bytes = Buffer.alloc(TAIL_BYTES);
  const log = openSync(path, 'r');
  try {
    const from = Math.max(0, fstatSync(log).size - TAIL_BYTES);
    const text = bytes.subarray(0, readSync(log, bytes, 0, TAIL_BYTES, from)).toString();
    const lines = text.split('\n').filter((line) => line.trim() !== '');
    return lines.slice(-MOST_LINES).map((line) => line.slice(0, LONGEST_LINE));
  } finally {
    closeSync(log);
  }
}
