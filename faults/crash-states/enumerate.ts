import type { Random } from '../fault.js';
import { SECTOR_BYTES } from '../sector.js';
import type { CrashModel } from '../write-log/model.js';
import { type CrashState, NOTHING_TORN } from '../write-log/state.js';

/** The rule by which a state was chosen; the report shows it. */
export type StateFamily = 'prefix' | 'all-but-one' | 'only-one' | 'torn' | 'random';

/** A crash state, and the rule by which it was chosen. */
export interface EnumeratedState {
  family: StateFamily;
  state: CrashState;
}

/**
 * Upper bound for the writes between two flushes that are singled out. Random states reach the writes that are
 * skipped.
 */
const MAX_SINGLED_OUT = 64;
/**
 * Upper bound for the weight of a cut in the random draw. The weight is the number of sectors that the cut
 * leaves open.
 */
const MAX_CUT_WEIGHT = 64;
/**
 * Largest number of optional writes of a small epoch. In a small epoch random states mostly tear a write,
 * because the other families already have every state with only whole writes.
 */
const SMALL_EPOCH_WRITES = 3;

/**
 * Yields the crash states of a log, from the cut after `from` entries on. No state of a finite family comes
 * twice, but two states may be equal disks. An epoch is the part of the log between two flushes. The finite
 * families come first, each in the order of its cuts:
 *
 * - every prefix, with all unflushed writes and with none of them
 * - in each epoch, all writes but one
 * - in each epoch, only one write
 * - every prefix with the write in flight torn in the usual patterns
 *
 * After them come random states without end: seeded subsets of the unflushed writes, some of them torn.
 */
export function* enumerate(
  model: CrashModel,
  from: number,
  random: Random,
): Generator<EnumeratedState, never> {
  for (const family of finiteFamilies(model, from)) yield* family;
  const drawState = randomStateDrawer(model, from, random);
  for (;;) yield { family: 'random', state: drawState() };
}

/**
 * Yields the states of `enumerate` in another order. Each family is shuffled, and the families take turns, so
 * that a short exploration reaches every family and all parts of the log. The states of a batch come in the
 * order of their cuts, because a state is cheaper to make when its cut is near the previous one.
 * @param batchSize number of states that are sorted by cut together.
 */
export function* shuffled(
  model: CrashModel,
  from: number,
  random: Random,
  batchSize: number,
): Generator<EnumeratedState, never> {
  const states = familiesInTurn(model, from, random);
  for (;;) {
    const batch = Array.from({ length: batchSize }, () => states.next().value);
    yield* batch.sort((a, b) => a.state.prefix - b.state.prefix);
  }
}

/** Yields one state of each family in turn. It skips families that have ended. */
function* familiesInTurn(model: CrashModel, from: number, random: Random): Generator<EnumeratedState, never> {
  const families = finiteFamilies(model, from).map((family) => shuffle([...family], random));
  const drawState = randomStateDrawer(model, from, random);
  for (;;) {
    for (const family of families) {
      const next = family.pop();
      if (next !== undefined) yield next;
    }
    yield { family: 'random', state: drawState() };
  }
}

function shuffle<T>(items: T[], random: Random): T[] {
  for (let last = items.length - 1; last > 0; last--) {
    const other = random.int(last + 1);
    [items[last], items[other]] = [items[other] as T, items[last] as T];
  }
  return items;
}

function finiteFamilies(model: CrashModel, from: number): Iterable<EnumeratedState>[] {
  return [
    prefixes(model, from),
    singledOut(model, from, 'all-but-one'),
    singledOut(model, from, 'only-one'),
    torn(model, from),
  ];
}

function* prefixes(model: CrashModel, from: number): Generator<EnumeratedState, void> {
  for (let prefix = from; prefix <= model.entries.length; prefix++) {
    yield { family: 'prefix', state: { prefix, kept: [], torn: NOTHING_TORN } };
    const kept = model.optional(prefix);
    if (kept.length > 0) yield { family: 'prefix', state: { prefix, kept, torn: NOTHING_TORN } };
  }
}

/** Yields the cuts that leave the most writes unflushed: before each flush, and at the end of the log. */
function* epochEnds(model: CrashModel, from: number): Generator<number, void> {
  for (let prefix = from; prefix <= model.entries.length; prefix++) {
    const next = model.entries[prefix];
    if (next === undefined || next.flush) yield prefix;
  }
}

function* singledOut(
  model: CrashModel,
  from: number,
  family: 'all-but-one' | 'only-one',
): Generator<EnumeratedState, void> {
  for (const prefix of epochEnds(model, from)) {
    const optional = model.optional(prefix);
    // With a single write, both states are among the prefixes.
    if (optional.length < 2) continue;
    const step = Math.ceil(optional.length / MAX_SINGLED_OUT);
    for (let at = 0; at < optional.length; at += step) {
      const one = optional[at] ?? 0;
      const kept = family === 'only-one' ? [one] : optional.filter((index) => index !== one);
      yield { family, state: { prefix, kept, torn: NOTHING_TORN } };
    }
  }
}

/**
 * Yields states in which the write in flight at a cut is torn, and all earlier writes since the last flush are
 * kept.
 */
function* torn(model: CrashModel, from: number): Generator<EnumeratedState, void> {
  for (let prefix = from; prefix < model.entries.length; prefix++) {
    const inFlight = model.entries[prefix];
    if (inFlight === undefined || inFlight.lengthBytes < 2 * SECTOR_BYTES) continue;
    const count = inFlight.lengthBytes / SECTOR_BYTES;
    const kept = inFlight.flush ? [] : model.optional(prefix);
    for (const sectors of usualTears(count)) {
      yield { family: 'torn', state: { prefix, kept, torn: new Map([[prefix, sectors]]) } };
    }
  }
}

/**
 * Returns the usual patterns of a torn write: only the first sector, all but the first, each half, all but
 * the last, every second one.
 */
function usualTears(count: number): number[][] {
  const all = Array.from({ length: count }, (_, sector) => sector);
  const half = count >> 1;
  const tears = [all.slice(0, 1), all.slice(1), all.slice(0, half), all.slice(half), all.slice(0, -1)];
  if (count > 2) tears.push(all.filter((sector) => sector % 2 === 0));
  return [...new Map(tears.map((tear) => [tear.join(), tear])).values()];
}

/**
 * Makes a function that draws random states. A cut that leaves more sectors open is drawn more often, up to a
 * bound: most cuts leave almost nothing open, and the other families already cover those.
 */
function randomStateDrawer(model: CrashModel, from: number, random: Random): () => CrashState {
  const cuts = Array.from({ length: model.entries.length - from + 1 }, (_, at) => from + at);
  const optionalWrites = new OptionalWrites(model);
  let total = 0;
  const cumulativeWeights = cuts.map((prefix) => {
    total += Math.min(MAX_CUT_WEIGHT, optionalWrites.sectorsAt(prefix));
    return total;
  });
  // No cut leaves a sector open, so all cuts are equally likely.
  if (total === 0)
    return () => randomState(model, cuts[random.int(cuts.length)] ?? from, random, optionalWrites);
  return () =>
    randomState(
      model,
      cuts[firstAbove(cumulativeWeights, random.int(total))] ?? from,
      random,
      optionalWrites,
    );
}

/** Returns the index of the first element of an ascending list that is greater than `number`. */
function firstAbove(sums: readonly number[], number: number): number {
  let low = 0;
  let high = sums.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sums[middle] ?? 0) > number) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The writes of a log that may be on the medium or not, with running totals for fast access by cut. */
class OptionalWrites {
  readonly #model: CrashModel;
  readonly #indices: number[] = [];
  /** By prefix: number of optional writes before it. */
  readonly #countBefore: Int32Array;
  /** By prefix: number of sectors of the optional writes before it. */
  readonly #sectorsBefore: Float64Array;

  constructor(model: CrashModel) {
    this.#model = model;
    this.#countBefore = new Int32Array(model.entries.length + 1);
    this.#sectorsBefore = new Float64Array(model.entries.length + 1);
    let sectors = 0;
    for (const { index, lengthBytes, fua } of model.entries) {
      if (lengthBytes > 0 && !fua) {
        this.#indices.push(index);
        sectors += lengthBytes / SECTOR_BYTES;
      }
      this.#countBefore[index + 1] = this.#indices.length;
      this.#sectorsBefore[index + 1] = sectors;
    }
  }

  /** Returns the entry numbers of the optional writes of a cut: the result of `CrashModel.optional`. */
  optionalAt(prefix: number): number[] {
    return this.#indices.slice(
      this.#countBefore[this.#model.durablePrefix(prefix)],
      this.#countBefore[prefix],
    );
  }

  /** Returns the number of sectors that a cut leaves open, including those of the write in flight. */
  sectorsAt(prefix: number): number {
    const open =
      (this.#sectorsBefore[prefix] ?? 0) - (this.#sectorsBefore[this.#model.durablePrefix(prefix)] ?? 0);
    const inFlightBytes = this.#model.entries[prefix]?.lengthBytes ?? 0;
    return open + inFlightBytes / SECTOR_BYTES;
  }
}

function randomState(
  model: CrashModel,
  prefix: number,
  random: Random,
  optionalWrites: OptionalWrites,
): CrashState {
  const inFlight = model.entries[prefix];
  const before = optionalWrites.optionalAt(prefix);
  const canBegin = inFlight !== undefined && inFlight.lengthBytes > 0;
  const begun = canBegin && (before.length === 0 || random.int(2) === 0);
  const optional = begun && inFlight.flush ? [] : before;
  if (begun) optional.push(prefix);
  const sectorsOf = (index: number) => (model.entries[index]?.lengthBytes ?? 0) / SECTOR_BYTES;
  const keepProbability = random.real();
  const tearProbability = random.int(3) === 0 ? random.real() / 2 : 0;
  // In a small epoch the other families already have the states with only whole writes, so tear one write
  // here.
  const isSmall = optional.length <= SMALL_EPOCH_WRITES && random.int(4) !== 0;
  const torn = isSmall ? optional[random.int(Math.max(1, optional.length))] : undefined;
  const kept: number[] = [];
  const tears = new Map<number, number[]>();
  for (const index of optional) {
    if (index === torn && sectorsOf(index) > 1) tears.set(index, tornSectors(sectorsOf(index), random));
    else if (random.real() < tearProbability) tears.set(index, someSectors(sectorsOf(index), random));
    else if (random.real() < keepProbability) kept.push(index);
  }
  return { prefix, kept, torn: tears };
}

function someSectors(count: number, random: Random): number[] {
  const keepProbability = random.real();
  return Array.from({ length: count }, (_, sector) => sector).filter(() => random.real() < keepProbability);
}

/** Chooses some of `count` sectors, at least one and not all. */
function tornSectors(count: number, random: Random): number[] {
  const some = someSectors(count, random);
  if (some.length > 0 && some.length < count) return some;
  const one = random.int(count);
  return some.length === 0 ? [one] : some.filter((sector) => sector !== one);
}
