import type { Random } from '../fault.js';
import { SECTOR_BYTES } from '../sector.js';
import type { CrashModel } from '../write-log/model.js';
import { type CrashState, NOTHING_TORN } from '../write-log/state.js';

/** How a state was come by, for the report. */
export type StateFamily = 'prefix' | 'all-but-one' | 'only-one' | 'torn' | 'random';

export interface EnumeratedState {
  family: StateFamily;
  state: CrashState;
}

/**
 * Whether an entry of the log writes anything that counts. Random states differ only in such writes: without the others they
 * are no less possible, and equal to many.
 */
export type IsRelevant = (index: number) => boolean;

/** Between so many writes that are singled out in one epoch the others are skipped: the random ones reach them. */
const MAX_SINGLED_OUT = 64;
/** A cut is drawn so many times as often as one that leaves a single sector open, at most. */
const MAX_CUT_WEIGHT = 64;
const SMALL_EPOCH_WRITES = 3;
/** So many random states are drawn at once and given in the order of their cuts: the nearer these are, the cheaper is the way. */
const RANDOM_BATCH_SIZE = 256;

/**
 * The crash states of a log, from the cut after `from` entries on, each once (two may be equal disks all the same):
 * first those that any crash model has (every prefix with all and with none of what was not flushed; in each epoch all
 * writes but one, and only one; the write under way, torn in the usual ways), then seeded random subsets, torn too,
 * without end. Within a family they come in the order of their cuts.
 */
export function* enumerate(
  model: CrashModel,
  from: number,
  random: Random,
  isRelevant?: IsRelevant,
  randomBatchSize = RANDOM_BATCH_SIZE,
): Generator<EnumeratedState, void> {
  yield* prefixes(model, from);
  yield* singledOut(model, from, 'all-but-one');
  yield* singledOut(model, from, 'only-one');
  yield* torn(model, from);
  const drawState = randomStateDrawer(model, from, random, isRelevant);
  for (;;) {
    const states = Array.from({ length: randomBatchSize }, drawState);
    for (const state of states.sort((a, b) => a.prefix - b.prefix)) yield { family: 'random', state };
  }
}

function* prefixes(model: CrashModel, from: number): Generator<EnumeratedState, void> {
  for (let prefix = from; prefix <= model.entries.length; prefix++) {
    yield { family: 'prefix', state: { prefix, kept: [], torn: NOTHING_TORN } };
    const kept = model.optional(prefix);
    if (kept.length > 0) yield { family: 'prefix', state: { prefix, kept, torn: NOTHING_TORN } };
  }
}

/** Where an epoch is longest: before each flush, and at the end. */
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
    // One write alone: both are prefixes.
    if (optional.length < 2) continue;
    const step = Math.ceil(optional.length / MAX_SINGLED_OUT);
    for (let at = 0; at < optional.length; at += step) {
      const one = optional[at] ?? 0;
      const kept = family === 'only-one' ? [one] : optional.filter((index) => index !== one);
      yield { family, state: { prefix, kept, torn: NOTHING_TORN } };
    }
  }
}

/** The write under way at each cut, and whatever came before it in its epoch there. */
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

/** Only the first sector, all but the first, half of it, all but the last, every second one. */
function usualTears(count: number): number[][] {
  const all = Array.from({ length: count }, (_, sector) => sector);
  const half = count >> 1;
  const tears = [all.slice(0, 1), all.slice(1), all.slice(0, half), all.slice(half), all.slice(0, -1)];
  if (count > 2) tears.push(all.filter((sector) => sector % 2 === 0));
  return [...new Map(tears.map((tear) => [tear.join(), tear])).values()];
}

/**
 * Draws random states: the more a cut leaves open, the more often it is drawn, up to a bound. Most cuts leave next to nothing
 * open, and that the other families have.
 */
function randomStateDrawer(
  model: CrashModel,
  from: number,
  random: Random,
  isRelevant: IsRelevant | undefined,
): () => CrashState {
  const cuts = Array.from({ length: model.entries.length - from + 1 }, (_, at) => from + at);
  const optionalWrites = new OptionalWrites(model, isRelevant);
  let total = 0;
  const cumulativeWeights = cuts.map((prefix) => {
    total += Math.min(MAX_CUT_WEIGHT, optionalWrites.sectorsAt(prefix));
    return total;
  });
  // Nothing is open anywhere.
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

/** The first place of an ascending list whose number is greater. */
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

/** The writes of a log that may be on the medium or not, and matter. */
class OptionalWrites {
  readonly isRelevant: IsRelevant;
  readonly #model: CrashModel;
  readonly #indices: number[] = [];
  /** At [prefix]: so many of them come before it. */
  readonly #countBefore: Int32Array;
  /** And so many sectors they have. */
  readonly #sectorsBefore: Float64Array;

  constructor(model: CrashModel, isRelevant: IsRelevant = () => true) {
    this.#model = model;
    this.isRelevant = isRelevant;
    this.#countBefore = new Int32Array(model.entries.length + 1);
    this.#sectorsBefore = new Float64Array(model.entries.length + 1);
    let sectors = 0;
    for (const { index, lengthBytes, fua } of model.entries) {
      if (lengthBytes > 0 && !fua && isRelevant(index)) {
        this.#indices.push(index);
        sectors += lengthBytes / SECTOR_BYTES;
      }
      this.#countBefore[index + 1] = this.#indices.length;
      this.#sectorsBefore[index + 1] = sectors;
    }
  }

  /** As the model's `optional`, those that matter. */
  optionalAt(prefix: number): number[] {
    return this.#indices.slice(
      this.#countBefore[this.#model.durablePrefix(prefix)],
      this.#countBefore[prefix],
    );
  }

  /** So many sectors a cut leaves open, with those of the write under way. */
  sectorsAt(prefix: number): number {
    const open =
      (this.#sectorsBefore[prefix] ?? 0) - (this.#sectorsBefore[this.#model.durablePrefix(prefix)] ?? 0);
    const inFlightBytes = this.isRelevant(prefix) ? (this.#model.entries[prefix]?.lengthBytes ?? 0) : 0;
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
  if (begun && optionalWrites.isRelevant(prefix)) optional.push(prefix);
  const sectorsOf = (index: number) => (model.entries[index]?.lengthBytes ?? 0) / SECTOR_BYTES;
  const keepProbability = random.real();
  const tearProbability = random.int(3) === 0 ? random.real() / 2 : 0;
  // The whole writes of a few are all among the prefixes and those singled out.
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

/** Neither none nor all of them. */
function tornSectors(count: number, random: Random): number[] {
  const some = someSectors(count, random);
  if (some.length > 0 && some.length < count) return some;
  const one = random.int(count);
  return some.length === 0 ? [one] : some.filter((sector) => sector !== one);
}

/** So many states of a family are taken at once and given in the order of their cuts. */
const BATCH_SIZE = 1024;
/** Random states are drawn so many hands at a time. */
const BATCHES_PER_DRAW = 2;

/**
 * The same states as `enumerate`, but each family shuffled, so that whoever has to stop early has seen all parts of the
 * log; in hands of so many, each in the order of its cuts.
 */
export function* shuffled(
  model: CrashModel,
  from: number,
  random: Random,
  batchSize = BATCH_SIZE,
  isRelevant?: IsRelevant,
): Generator<EnumeratedState, void> {
  let gathered: EnumeratedState[] = [];
  for (const next of enumerate(model, from, random, isRelevant, BATCHES_PER_DRAW * batchSize)) {
    if (gathered[0]?.family !== next.family) {
      yield* shuffledBatches(gathered, random, batchSize);
      gathered = [];
    }
    // Drawn in hands already, and without end.
    if (next.family === 'random') yield next;
    else gathered.push(next);
  }
}

function* shuffledBatches(
  states: EnumeratedState[],
  random: Random,
  batchSize: number,
): Generator<EnumeratedState, void> {
  for (let last = states.length - 1; last > 0; last--) {
    const other = random.int(last + 1);
    [states[last], states[other]] = [states[other] as EnumeratedState, states[last] as EnumeratedState];
  }
  for (let at = 0; at < states.length; at += batchSize) {
    yield* states.slice(at, at + batchSize).sort((a, b) => a.state.prefix - b.state.prefix);
  }
}
