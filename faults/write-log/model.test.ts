import fc from 'fast-check';
import t from 'tap';
import { enumerate, shuffled } from '../crash-states/enumerate.js';
import { SECTOR_BYTES } from '../sector.js';
import { allStates, diskOf, NaiveDrive } from './fixtures/drive.js';
import { CrashModel } from './model.js';
import type { LogEntry } from './reader.js';
import { type CrashState, formatState, parseState } from './state.js';

const DISK_SECTORS = 3;

type Made = { first: number; count: number; flush: boolean; fua: boolean; discard: boolean };

function entriesOf(made: readonly Made[]): LogEntry[] {
  return made.map(({ first, count, ...flags }, index) => ({
    index,
    offset: first * SECTOR_BYTES,
    lengthBytes: Math.min(count, DISK_SECTORS - first) * SECTOR_BYTES,
    metadata: false,
    mark: undefined,
    dataAt: 0,
    ...flags,
  }));
}

const LOGS = fc.array(
  fc.record({
    first: fc.nat(DISK_SECTORS - 1),
    count: fc.nat(DISK_SECTORS),
    flush: fc.boolean(),
    fua: fc.boolean(),
    discard: fc.boolean(),
  }),
  { maxLength: 5 },
);

/** Makes a `Random` from a seed that fast-check draws. */
function randomOf(seed: number) {
  let state = seed >>> 0;
  const real = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const int = (below: number) => Math.floor(real() * below);
  const pick = <T>(items: readonly T[]): T => items[int(items.length)] as T;
  const random = { real, int, pick, fork: () => random };
  return random;
}

function naiveDisks(entries: readonly LogEntry[], prefix: number, under: boolean): Set<string> {
  const drive = new NaiveDrive(DISK_SECTORS);
  for (const entry of entries.slice(0, prefix)) drive.execute(entry, true);
  const next = entries[prefix];
  if (under && next !== undefined) drive.execute(next, false);
  return drive.disks();
}

t.test('the states of a cut are exactly the disks that a naive drive can leave', async (t) => {
  let states = 0;
  fc.assert(
    fc.property(LOGS, fc.boolean(), (made, under) => {
      const entries = entriesOf(made);
      const model = new CrashModel(entries);
      for (let prefix = 0; prefix <= entries.length; prefix++) {
        const every = allStates(model, prefix, under);
        states += every.length;
        for (const state of every) if (model.whyImpossible(state) !== undefined) return false;
        const disks = new Set(every.map((state) => diskOf(model, state, DISK_SECTORS)));
        const naive = naiveDisks(entries, prefix, under);
        // If a write in flight has not reached the medium, its flush was not done either: the same as a cut
        // before it.
        if (under) for (const disk of naiveDisks(entries, prefix, false)) naive.add(disk);
        const whole = under ? new Set([...disks, ...naiveDisks(entries, prefix, false)]) : disks;
        if (whole.size !== naive.size || ![...whole].every((disk) => naive.has(disk))) return false;
      }
      return true;
    }),
    { numRuns: 500 },
  );
  t.ok(states > 1000, `${states} states`);
});

t.test('every enumerated state is possible and survives its address, and every prefix occurs', async (t) => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(LOGS, fc.integer(), (made, seed) => {
      const entries = entriesOf(made);
      const model = new CrashModel(entries);
      const prefixes = new Set<number>();
      let budget = 400;
      for (const { state, family } of enumerate(model, 0, randomOf(seed))) {
        if (budget-- === 0) break;
        seen.add(family);
        if (family === 'prefix') prefixes.add(state.prefix);
        if (model.whyImpossible(state) !== undefined) return false;
        const again = parseState(formatState(state));
        const disk = diskOf(model, state, DISK_SECTORS);
        if (diskOf(model, again, DISK_SECTORS) !== disk) return false;
        const possible = [false, true].some((under) => naiveDisks(entries, state.prefix, under).has(disk));
        if (!possible) return false;
      }
      return prefixes.size === entries.length + 1;
    }),
    { numRuns: 100 },
  );
  t.same([...seen].sort(), ['all-but-one', 'only-one', 'prefix', 'random', 'torn']);
});

t.test('shuffled yields the same states as enumerate, each once, and random states without end', async () => {
  fc.assert(
    fc.property(LOGS, fc.integer(), fc.integer({ min: 1, max: 9 }), (made, seed, hand) => {
      const model = new CrashModel(entriesOf(made));
      const take = (states: Iterable<{ state: CrashState; family: string }>) => {
        const named: string[] = [];
        let random = 0;
        for (const { state, family } of states) {
          if (family === 'random') random += 1;
          else named.push(`${family} ${formatState(state)}`);
          if (random === 300) return named.sort();
        }
        return [`only ${random} random ones`];
      };
      const plain = take(enumerate(model, 0, randomOf(seed)));
      const mixed = take(shuffled(model, 0, randomOf(seed), hand));
      return plain.join() === mixed.join();
    }),
    { numRuns: 50 },
  );
});

t.test('in shuffled the families take turns until they end, and each batch is sorted by cut', async () => {
  fc.assert(
    fc.property(LOGS, fc.integer(), fc.integer({ min: 5, max: 40 }), (made, seed, batchSize) => {
      const model = new CrashModel(entriesOf(made));
      const left = new Map<string, number>();
      for (const { family } of enumerate(model, 0, randomOf(seed))) {
        if (family === 'random') break;
        left.set(family, (left.get(family) ?? 0) + 1);
      }
      const states = shuffled(model, 0, randomOf(seed), batchSize);
      for (let number = 0; number < 6; number++) {
        const batch = Array.from({ length: batchSize }, () => states.next().value);
        if (batch.some(({ state }, at) => state.prefix < (batch[at - 1]?.state.prefix ?? 0))) return false;
        const inBatch = new Map<string, number>();
        for (const { family } of batch) inBatch.set(family, (inBatch.get(family) ?? 0) + 1);
        if (!inBatch.has('random')) return false;
        for (const [family, count] of left) {
          const taken = inBatch.get(family) ?? 0;
          // One state in five comes from each family, until the family ends.
          if (taken < Math.min(count, Math.floor(batchSize / 5))) return false;
          left.set(family, count - taken);
        }
      }
      return true;
    }),
    { numRuns: 100 },
  );
});

t.test('enough states reach every possible disk of a small log', async (t) => {
  const entries = entriesOf([
    { first: 0, count: 3, flush: false, fua: false, discard: false },
    { first: 1, count: 2, flush: false, fua: false, discard: false },
    { first: 0, count: 0, flush: true, fua: false, discard: false },
    { first: 0, count: 2, flush: false, fua: false, discard: true },
  ]);
  const model = new CrashModel(entries);
  const all = new Set<string>();
  for (let prefix = 0; prefix <= entries.length; prefix++)
    for (const under of [false, true]) for (const disk of naiveDisks(entries, prefix, under)) all.add(disk);
  const reached = new Set<string>();
  let draws = 0;
  for (const { state } of enumerate(model, 0, randomOf(1))) {
    reached.add(diskOf(model, state, DISK_SECTORS));
    if (++draws === 20_000) break;
  }
  t.same([...reached].sort(), [...all].sort());
});

t.test('an impossible crash state is refused, with the reason', async (t) => {
  const write = { first: 0, count: 2, flush: false, fua: false, discard: false };
  const model = new CrashModel(
    entriesOf([write, { ...write, fua: true }, { ...write, count: 0, flush: true }, write, write]),
  );
  const problem = (address: string) => model.whyImpossible(parseState(address));
  t.equal(problem('5+3~4:0'), undefined);
  t.match(problem('9'), /prefix 9: expected 0 to 5/);
  t.match(problem('4+0'), /entry 0: is on the medium in any case/);
  t.match(problem('2+1'), /entry 1: is on the medium in any case/);
  t.match(problem('3+4'), /entry 4: expected a write up to entry 3/);
  t.match(problem('5+2'), /entry 2: expected a write/);
  t.match(problem('5+3~3:0'), /entry 3: is both kept and torn/);
  t.match(problem('5~3:2'), /entry 3: has 2 sectors and none of number 2/);
  for (const wrong of ['', 'x', '5+', '5+3,2', '5+1-99999999999', '5~3', '-1'])
    t.throws(() => parseState(wrong), RangeError, wrong);
});
