import type { LinkCut, Random } from '../fault.js';
import { sample } from '../random-choice.js';
import { between, majorityOf } from './majority.js';

/** A way to divide a cluster by cuts. */
export interface Shape {
  /** One phrase for people: who is cut off from whom. */
  detail: string;
  cut: LinkCut[];
  /** Nodes on the side that is given up: they count as harmed. Empty when every node still reaches a majority. */
  harmed: string[];
}

/**
 * Draws a partition that harms at most `tolerates` nodes: one node is isolated; a group of several is; links carry packets
 * in one direction only; or two majorities overlap in nodes that see both sides.
 * @param mustHarm node that must be on the side that is given up; undefined: any.
 * @returns undefined when no partition is within the fault budget.
 */
export function drawShape(
  random: Random,
  nodes: readonly string[],
  tolerates: number,
  mustHarm?: string,
): Shape | undefined {
  const groupSize = Math.min(tolerates, Math.floor(nodes.length / 2));
  const kinds = [
    ...(groupSize >= 1 ? (['isolated', 'one-way'] as const) : []),
    ...(groupSize >= 2 ? (['halves'] as const) : []),
    ...(nodes.length >= 3 && mustHarm === undefined ? (['bridge'] as const) : []),
  ];
  if (kinds.length === 0) return undefined;
  const kind = random.pick(kinds);
  if (kind === 'bridge') return bridge(random, nodes);
  const size = kind === 'isolated' ? 1 : kind === 'halves' ? groupSize : 1 + random.int(groupSize);
  const first = mustHarm === undefined ? [] : [mustHarm];
  const others = nodes.filter((node) => node !== mustHarm);
  const harmed = inOrder(nodes, [...first, ...sample(random, others, size - first.length)]);
  const rest = nodes.filter((node) => !harmed.includes(node));
  if (kind !== 'one-way')
    return { detail: `${list(harmed)} cut off from ${list(rest)}`, cut: between(harmed, rest), harmed };
  const [from, to] = random.int(2) === 0 ? [harmed, rest] : [rest, harmed];
  return { detail: `no packet from ${list(from)} to ${list(to)}`, cut: between(from, to, 'one'), harmed };
}

/** Cuts the links between two groups. Each of them is a majority with the nodes that are in neither. */
function bridge(random: Random, nodes: readonly string[]): Shape {
  const size = nodes.length - majorityOf(nodes.length);
  const chosen = sample(random, nodes, 2 * size);
  const [left, right] = [inOrder(nodes, chosen.slice(0, size)), inOrder(nodes, chosen.slice(size))];
  const middle = nodes.filter((node) => !chosen.includes(node));
  return {
    detail: `${list(left)} cut off from ${list(right)}, ${list(middle)} sees both`,
    cut: between(left, right),
    harmed: [],
  };
}

function inOrder(nodes: readonly string[], chosen: readonly string[]): string[] {
  return nodes.filter((node) => chosen.includes(node));
}

/** Lists names for people. */
export function list(names: readonly string[]): string {
  return names.join(', ');
}
