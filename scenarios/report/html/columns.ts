import type { Deltas } from './model.js';

/*
 * The columns of the report's data. Both the program that writes the report and the one in the browser use this
 * file, so it imports nothing but types.
 */

/** Ticks per millisecond: see `model.ts`. */
export const TICKS_PER_MS = 10;

/** Converts milliseconds to the nearest tick. */
export function toTicks(ms: number): number {
  return Math.round(ms * TICKS_PER_MS);
}

/** Encodes integers as differences. Small differences take few digits and pack well. */
export function toDeltas(values: readonly number[]): Deltas {
  return values.map((value, index) => value - (index === 0 ? 0 : (values[index - 1] ?? 0)));
}

/** Decodes what `toDeltas` made. */
export function fromDeltas(deltas: Deltas): Float64Array {
  const values = new Float64Array(deltas.length);
  let value = 0;
  for (let index = 0; index < deltas.length; index++) {
    value += deltas[index] ?? 0;
    values[index] = value;
  }
  return values;
}
