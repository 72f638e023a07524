import type { Random } from './fault.js';

/** Draws up to `count` different items, in random order. */
export function sample<T>(random: Random, items: readonly T[], count: number): T[] {
  const pool = [...items];
  const chosen: T[] = [];
  while (chosen.length < count && pool.length > 0) chosen.push(...pool.splice(random.int(pool.length), 1));
  return chosen;
}

/**
 * Draws an integer from `min` to `max` (both included), uniform on a log scale: 1 to 9 is as likely as 10 to
 * 99.
 */
export function logUniformInt(random: Random, min: number, max: number): number {
  return Math.min(max, Math.floor(min * ((max + 1) / min) ** random.real()));
}
