import fc from 'fast-check';
import t from 'tap';
import { between, seeded } from './random.js';

const draws = (random: ReturnType<typeof seeded>, count = 20) =>
  Array.from({ length: count }, () => random.int(1000));

t.test('one seed makes one sequence, and another seed makes another one', async (t) => {
  t.same(draws(seeded(7)), draws(seeded(7)));
  t.notSame(draws(seeded(7)), draws(seeded(8)));
});

t.test('a fork depends only on the seed and its name, not on earlier draws', async (t) => {
  const used = seeded(7);
  draws(used);
  t.same(draws(used.fork('faults')), draws(seeded(7).fork('faults')));
  t.notSame(draws(seeded(7).fork('a')), draws(seeded(7).fork('b')));
  t.notSame(draws(seeded(7).fork('a').fork('b')), draws(seeded(7).fork('a/c')));
});

t.test('numbers stay within their bounds and reach both ends', async (t) => {
  fc.assert(
    fc.property(fc.integer(), fc.integer({ min: 1, max: 5 }), (seed, below) => {
      const seen = new Set(
        Array.from(
          { length: 300 },
          (
            (random) => () =>
              random.int(below)
          )(seeded(seed)),
        ),
      );
      return seen.size === below && Math.max(...seen) === below - 1 && Math.min(...seen) === 0;
    }),
    { numRuns: 50 },
  );
  t.same(
    new Set(
      Array.from(
        { length: 100 },
        (
          (random) => () =>
            between(random, 3, 5)
        )(seeded(1)),
      ),
    ),
    new Set([3, 4, 5]),
  );
});

t.test('a draw from an empty list or an empty range is an error', async (t) => {
  t.throws(() => seeded(1).pick([]), RangeError);
  t.throws(() => seeded(1).int(0), RangeError);
});
