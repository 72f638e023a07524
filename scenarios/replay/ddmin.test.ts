import fc from 'fast-check';
import t from 'tap';
import { seeded } from '../host/random.js';
import { ddmin } from './ddmin.js';

t.test('the result fails, and no item can be removed from it', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 60 }),
      fc.array(fc.nat(59), { maxLength: 5 }),
      async (count, picks) => {
        const needed = new Set(picks.map((pick) => pick % count));
        const fails = (part: readonly number[]) => [...needed].every((one) => part.includes(one));
        const left = await ddmin(
          Array.from({ length: count }, (_, n) => n),
          fails,
        );
        const least = needed.size === 0 ? 1 : needed.size;
        return fails(left) && left.length === least;
      },
    ),
  );
  t.pass('this holds in every generated case');
});

t.test('a list that fails only sometimes shrinks to a part that was observed to fail', async (t) => {
  let calls = 0;
  const left = await ddmin([1, 2, 3, 4, 5, 6, 7, 8], (part) => part.includes(3) && ++calls % 2 === 0);
  t.ok(left.includes(3));
  t.ok(left.length < 8);
});

t.test('ddmin needs fewer calls than fast-check for the same result', async (t) => {
  const random = seeded(1);
  let [ourCalls, theirCalls] = [0, 0];
  for (let round = 0; round < 10; round++) {
    const items = [...Array(64).keys()];
    const needed = [random.int(64), random.int(64), random.int(64)];
    const fails = (part: readonly number[]) => needed.every((one) => part.includes(one));
    const left = await ddmin(items, (part) => ++ourCalls > 0 && fails(part));
    const property = fc.property(fc.subarray(items), (part) => ++theirCalls > 0 && !fails(part));
    const { counterexample } = fc.check(property, { examples: [[items]], numRuns: 1 });
    t.same(left, counterexample?.[0]);
  }
  t.ok(ourCalls < theirCalls, `${ourCalls} calls by ddmin, ${theirCalls} by fast-check`);
});

t.test('ddmin returns the smallest known part when it is out of time', async (t) => {
  let left = 3;
  const part = await ddmin(
    [...Array(64).keys()],
    (some) => some.includes(5),
    () => left-- <= 0,
  );
  t.ok(part.includes(5));
  t.ok(part.length > 1);
});
