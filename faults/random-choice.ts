import type { Random } from './fault.js';

/** A seeded choice of `count` different items, in seeded order. */
export function sample<T>(random: Random, items: readonly T[], count: number): T[] {
  const pool = [...items];
  const chosen: T[] = [];
  while (chosen.length < count && pool.length > 0) chosen.push(...pool.splice(random.int(pool.length), 1));
  return chosen;
}

/** Whole number from `low` to `high`, both included, the small ones as likely as the large ones (log scale). */
export function logUniformInt(random: Random, min: number, max: number): number {
  return Math.min(max, Math.floor(min * ((max + 1) / min) ** random.real()));
}
