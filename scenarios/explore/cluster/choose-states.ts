import type { Random } from '../../../faults/fault.js';
import { SECTOR_BYTES } from '../../../faults/sector.js';
import type { CrashModel } from '../../../faults/write-log/model.js';
import { type CrashState, NOTHING_TORN } from '../../../faults/write-log/state.js';
import type { ClusterFamily } from '../result/cluster-family.js';
import type { ClusterState, NodeState } from './address.js';
import type { Instant } from './instants.js';

/** A state of a cluster, and the rule by which it was chosen. */
export interface ChosenState {
  family: ClusterFamily;
  state: ClusterState;
}

/** What states are chosen from. */
export interface StateSpace {
  /** Names of the nodes, and the models of their disks. */
  nodes: readonly { name: string; model: CrashModel }[];
  instants: readonly Instant[];
  /** Number of the first instant at which a message is at risk. */
  from: number;
  /** True if the cluster promises to serve without one of its machines. */
  mayLackOne: boolean;
}

/** The order in which families take turns: a short run should reach the states that lose most first. */
const TURNS: readonly ClusterFamily[] = [
  'all-lost',
  'one-cut',
  'away',
  'random',
  'all-lost',
  'one-lost',
  'torn',
  'one-cut-random',
  'away-random',
  'all-kept',
];

/** Yields states without end; none when no instant is left. The families take turns, each spread over the instants. */
export function* chooseStates(space: StateSpace, random: Random): Generator<ChosenState, void> {
  const all = spread(space.instants.length - space.from).map((step) => space.from + step);
  const withCopies = all.filter((number) => space.instants[number]?.hasCopies === true);
  if (all.length === 0) return;
  // Begin elsewhere with each seed.
  const shift = random.int(all.length);
  for (let round = 0; ; round++) {
    for (const [turn, family] of TURNS.entries()) {
      const isCut = family === 'one-cut' || family === 'one-cut-random';
      if (isCut && withCopies.length === 0) continue;
      if (family.startsWith('away') && !space.mayLackOne) continue;
      const instants = isCut ? withCopies : all;
      const at = round + (isCut ? 0 : shift + Math.floor((turn * all.length) / TURNS.length));
      const instant = instants[at % instants.length] ?? 0;
      // Each instant meets each node, also when the numbers of both have a common divisor.
      const node = (round + Math.floor(round / instants.length)) % space.nodes.length;
      yield { family, state: stateOf(space, family, instant, node, random) };
    }
  }
}

/**
 * Returns the numbers from 0 to `count` - 1 in an order in which every beginning is spread evenly over all: the bits of the
 * place are reversed. The last number comes first, because most messages are at risk at the end.
 */
export function spread(count: number): number[] {
  const bits = Math.max(1, Math.ceil(Math.log2(Math.max(1, count))));
  const order: number[] = [];
  for (let place = 0; place < 2 ** bits; place++) {
    let reversed = 0;
    for (let bit = 0; bit < bits; bit++) reversed |= ((place >> bit) & 1) << (bits - 1 - bit);
    if (reversed < count) order.push(count - 1 - reversed);
  }
  return order;
}

function stateOf(
  { nodes, instants }: StateSpace,
  family: ClusterFamily,
  instant: number,
  chosen: number,
  random: Random,
): ClusterState {
  const lengths = instants[instant]?.lengths ?? [];
  const states = nodes.map(({ name, model }, index): [string, NodeState] => {
    const prefix = lengths[index] ?? 0;
    return [name, nodeStateOf(model, prefix, family, index === chosen, random)];
  });
  const isAway = family === 'away' || family === 'away-random';
  return { instant, nodes: new Map(states), ...(isAway ? { away: nodes[chosen]?.name } : {}) };
}

function nodeStateOf(
  model: CrashModel,
  prefix: number,
  family: ClusterFamily,
  isChosen: boolean,
  random: Random,
): NodeState {
  const lost: CrashState = { prefix, kept: [], torn: NOTHING_TORN };
  const kept = { ...lost, kept: model.optional(prefix) };
  switch (family) {
    case 'all-lost':
    case 'away':
      return lost;
    case 'all-kept':
      return kept;
    case 'one-lost':
      return isChosen ? lost : kept;
    case 'torn':
      return tornState(model, prefix, random);
    case 'random':
    case 'away-random':
      return randomState(model, prefix, random);
    case 'one-cut':
      return isChosen ? lost : 'live';
    case 'one-cut-random':
      return isChosen ? randomState(model, prefix, random) : 'live';
  }
}

/** Returns whether a write may have begun at the instant that was not complete: then it may be on the medium too. */
export function hasBegunMore({ nodes }: ClusterState): boolean {
  return [...nodes.values()].some(
    (state) => state !== 'live' && (state.kept.at(-1) === state.prefix || state.torn.has(state.prefix)),
  );
}

/** The write under way at the cut is torn, and every earlier write that was not flushed is kept. */
function tornState(model: CrashModel, prefix: number, random: Random): CrashState {
  const inFlight = model.entries[prefix];
  const sectors = (inFlight?.lengthBytes ?? 0) / SECTOR_BYTES;
  const kept = inFlight?.flush === true ? [] : model.optional(prefix);
  if (sectors < 2) return { prefix, kept: model.optional(prefix), torn: NOTHING_TORN };
  const count = 1 + random.int(sectors - 1);
  const first = random.int(2) === 0 ? 0 : sectors - count;
  const torn = new Map([[prefix, Array.from({ length: count }, (_, sector) => first + sector)]]);
  return { prefix, kept, torn };
}

function randomState(model: CrashModel, prefix: number, random: Random): CrashState {
  const share = random.real();
  const kept: number[] = [];
  const torn = new Map<number, number[]>();
  for (const entry of model.optional(prefix)) {
    const sectors = (model.entries[entry]?.lengthBytes ?? 0) / SECTOR_BYTES;
    if (random.real() < share) kept.push(entry);
    else if (sectors > 1 && random.int(4) === 0)
      torn.set(
        entry,
        Array.from({ length: 1 + random.int(sectors - 1) }, (_, sector) => sector),
      );
  }
  return { prefix, kept, torn };
}
