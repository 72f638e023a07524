import { z } from 'zod';
import { DURATION_UNITS_MS, parseDurationMs, parseSize, SIZE_UNITS } from '../../common/cli/units.js';

interface Range {
  min: number;
  max: number;
}

/** Builds the schema of a number of bytes, given as a number or as text with a unit. */
export function size(range: Range, multipleOf = 1) {
  const steps = multipleOf === 1 ? '' : `, a multiple of ${multipleOf}`;
  const error = `a size such as 64MiB, 1GB or a number of bytes, from ${range.min} to ${range.max}${steps}`;
  const bytes = wholeNumber(range, error).multipleOf(multipleOf, { error });
  return z.union([bytes, withUnit(SIZE_UNITS, parseSize).pipe(bytes)], { error });
}

/** Builds the schema of a number of milliseconds, given as a number or as text with a unit. */
export function durationMs(range: Range) {
  const error = `a duration such as 250ms, 10s or a number of milliseconds, from ${range.min} to ${range.max}`;
  const ms = wholeNumber(range, error);
  return z.union([ms, withUnit({ '': 1, ...DURATION_UNITS_MS }, parseDurationMs).pipe(ms)], { error });
}

/** Builds the schema of a whole number, given as a number or, as a flag gives it, as text of digits. */
export function count(range: Range) {
  const error = `a whole number from ${range.min} to ${range.max}`;
  const number = wholeNumber(range, error);
  return z.union([number, withUnit({ '': 1 }, parseWhole).pipe(number)], { error });
}

/**
 * Gives every check the same message, because zod reports the message of the last failed check, not of the union.
 */
const wholeNumber = ({ min, max }: Range, error: string) =>
  z.int({ error }).min(min, { error }).max(max, { error });

function parseWhole(text: string): number | undefined {
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function withUnit(units: Record<string, number>, parse: (text: string) => number | undefined) {
  const names = Object.keys(units).filter((name) => name !== '');
  const pattern = new RegExp(`^\\d+(\\.\\d+)?\\s*(${names.join('|')})?$`);
  return z
    .string()
    .regex(pattern)
    .transform((text, context) => {
      const value = parse(text);
      if (value !== undefined) return value;
      context.addIssue({ code: 'custom', message: 'no whole number of the unit' });
      return z.NEVER;
    });
}
