import { InvalidArgumentError } from 'commander';
import type { Filesystem } from '../../faults/power/filesystem.js';
import { whyNotAllowed } from '../../faults/power/mount-options.js';

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const MAX_SEED = 2 ** 40;
/** Upper bound of a budget. A timer of Node cannot wait longer than 596 hours: it would fire at once. */
const MAX_BUDGET_MS = 500 * 3_600_000;

/** Parses a time such as `60s`, `5m`, `1500ms` or `1h`, and returns milliseconds. */
export function parseBudget(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text);
  const ms = Number(match?.[1]) * (UNITS_MS[match?.[2] ?? ''] ?? Number.NaN);
  if (!Number.isFinite(ms) || ms < 1000 || ms > MAX_BUDGET_MS) {
    throw new InvalidArgumentError('expected a time of at least 1s, such as 60s or 5m, and at most 500h.');
  }
  return Math.round(ms);
}

/** Parses a seed: a whole number from 0 to 2^40. */
export function parseSeed(text: string): number {
  const seed = Number(text);
  if (!/^\d+$/.test(text) || seed > MAX_SEED) {
    throw new InvalidArgumentError(`expected a whole number from 0 to ${MAX_SEED}.`);
  }
  return seed;
}

/** Parses a whole number from 1, of at most 6 digits. */
export function parseCount(text: string): number {
  const count = Number(text);
  if (!/^\d{1,6}$/.test(text) || count < 1) {
    throw new InvalidArgumentError('expected a whole number from 1.');
  }
  return count;
}

/** Parses a whole number from 0, of at most 9 digits. */
export function parseIndex(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('expected a whole number from 0.');
}

/** Parses names with commas between them. */
export function parseNames(text: string): string[] {
  const names = text.split(',').map((name) => name.trim());
  if (names.some((name) => name === '')) {
    throw new InvalidArgumentError('expected names with commas between, such as kill,pause.');
  }
  return names;
}

/**
 * Parses `ext4` or `xfs`, with optional mount options after a colon, such as `ext4:commit=1,data=journal`.
 */
export function parseFilesystem(text: string): Filesystem {
  const match = /^(ext4|xfs)(?::([\w=,.-]+))?$/.exec(text);
  const type = match?.[1];
  if (type !== 'ext4' && type !== 'xfs') {
    throw new InvalidArgumentError(
      'expected ext4 or xfs, with mount options such as ext4:commit=1,data=journal.',
    );
  }
  const mountOptions = match?.[2] ?? '';
  if (mountOptions.split(',').includes('ro')) {
    throw new InvalidArgumentError('expected options of a disk that can be written to, without ro.');
  }
  const why = whyNotAllowed(type, mountOptions);
  if (why !== undefined) throw new InvalidArgumentError(`${why}.`);
  return { type, mountOptions };
}

/**
 * Parses reporters such as `list` or `junit:report.xml`, with commas between them. Appends them to those of
 * the earlier occurrences of the flag.
 */
export function collectReporters(text: string, previous: readonly string[] | undefined): string[] {
  return [...(previous ?? []), ...parseNames(text)];
}
