import { createHash } from 'node:crypto';
import type { Random } from '../../faults/fault.js';

/**
 * Makes a generator whose whole sequence follows from `seed` (sfc32). A fork depends only on the seed and its
 * name, not on earlier draws: the draws of one part never change those of another.
 */
export function seeded(seed: number | string): Random {
  const path = String(seed);
  const digest = createHash('sha256').update(path).digest();
  const state = Uint32Array.from([0, 4, 8, 12], (at) => digest.readUInt32LE(at));

  function next(): number {
    const [a = 0, b = 0, c = 0, counter = 0] = state;
    const sum = (a + b + counter) >>> 0;
    state[3] = counter + 1;
    state[0] = b ^ (b >>> 9);
    state[1] = c + (c << 3);
    state[2] = ((c << 21) | (c >>> 11)) + sum;
    return sum;
  }
  for (let round = 0; round < 12; round++) next();

  const real = () => (next() * 2 ** 21 + (next() >>> 11)) / 2 ** 53;
  return {
    real,
    int(below) {
      if (!Number.isSafeInteger(below) || below < 1) {
        throw new RangeError(`random integer below ${below}: expected a whole number of at least 1`);
      }
      return Math.floor(real() * below);
    },
    pick(items) {
      const item = items[Math.floor(real() * items.length)];
      if (item === undefined) throw new RangeError('random pick from nothing');
      return item;
    },
    fork: (name) => seeded(`${path}/${name}`),
  };
}

/** Draws an integer from `low` to `high`, both included. */
export function between(random: Random, low: number, high: number): number {
  return low + random.int(high - low + 1);
}
