import fc from 'fast-check';
import t from 'tap';
import { FAULTS } from '../../faults/catalogue/catalogue.js';
import { makeSchedule } from './schedule.js';

/** The faults that take turns. Power cuts have separate rounds. */
const TURNS = FAULTS.filter(({ needs }) => needs.disk !== 'power');
const seeds = fc.integer({ min: 0, max: 2 ** 40 });

t.test('one seed makes one schedule', async () => {
  fc.assert(
    fc.property(seeds, fc.integer({ min: 1, max: 5 }), (seed, mains) => {
      const [one, two] = [makeSchedule(seed, FAULTS, mains), makeSchedule(seed, FAULTS, mains)];
      return JSON.stringify(one) === JSON.stringify(two);
    }),
  );
});

t.test('consecutive seeds try every fault once before the turns begin again', async () => {
  fc.assert(
    fc.property(seeds, fc.integer({ min: 1, max: 5 }), (seed, mains) => {
      const rounds = Math.ceil(TURNS.length / mains);
      const tried = new Set<string>();
      for (let round = 0; round < rounds; round++) {
        for (const { fault } of makeSchedule(seed + round, TURNS, mains).injections) tried.add(fault);
      }
      return tried.size === TURNS.length;
    }),
  );
});

t.test('a fault that needs a limited disk gets one', async (t) => {
  const limited = FAULTS.filter(({ needs }) => needs.disk === 'limited');
  t.equal(makeSchedule(1, limited, 1).disk, 'limited');
  t.equal(makeSchedule(1, TURNS.slice(0, 1), 1).disk, 'any');
});

t.test('a fault that may be repeated only after a recovery is at most once in a round', async () => {
  const once = FAULTS.filter(({ oncePerRound }) => oncePerRound === true);
  const names = new Set(once.map(({ name }) => name));
  fc.assert(
    fc.property(seeds, fc.subarray(TURNS), (seed, others) => {
      const faults = [...once, ...others.filter(({ name }) => !names.has(name))];
      const { injections } = makeSchedule(seed, faults, 1);
      return once.length > 0 && injections.filter(({ fault }) => names.has(fault)).length <= 1;
    }),
  );
});

t.test('receivers are held whenever a fault proves nothing otherwise', async (t) => {
  const always = FAULTS.filter(({ holdsReceivers }) => holdsReceivers === 'always');
  t.ok(always.length > 0);
  for (const fault of always)
    for (let seed = 0; seed < 20; seed++)
      t.ok(makeSchedule(seed, [fault], 1).injections.every(({ holdReceivers }) => holdReceivers === true));
});

t.test(
  'in a round of power cuts each fault has its turn first, and nothing harms nodes after a lost disk',
  async (t) => {
    const power = FAULTS.filter(({ needs }) => needs.disk === 'power');
    t.ok(power.length > 2);
    for (let seed = 0; seed < 50; seed++) {
      const [first, ...rest] = makeSchedule(seed, power, 1).injections;
      t.match(first, { fault: 'power-cut', beforeStart: true });
      const names = rest.map(({ fault }) => fault);
      t.equal(new Set(names.slice(0, power.length)).size, power.length, names.join(' '));
      const lostAt = names.indexOf('node-loss-power');
      const later = new Set(names.slice(lostAt + 1));
      t.ok(lostAt >= 0 && !later.has('node-loss-power') && !later.has('cut-then-elect'), names.join(' '));
      t.ok(later.size > 0);
    }
  },
);

t.test('a round whose only fault may occur once has it once', async (t) => {
  const once = FAULTS.filter(({ name }) => name === 'node-loss-power');
  t.strictSame(
    makeSchedule(1, once, 1).injections.map(({ fault }) => fault),
    ['node-loss-power'],
  );
});
