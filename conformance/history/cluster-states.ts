import type { ClusterState } from './events.js';

/*
 * What the nodes of a cluster may and must do while the kit has some of them down and some of their links cut. Two nodes
 * are connected when both are up and no direction of their link is cut: TCP needs both directions.
 */

/** Faults that act on links. They stop no process, and still a message can be lost by them. */
const LINK_FAULTS: readonly string[] = ['partition', 'stale-link', 'link-delay', 'link-loss'];

/** Returns whether a fault acts on the links of a cluster: one of these families, or a variant such as `partition-bridge`. */
export function isLinkFault(fault: string): boolean {
  return LINK_FAULTS.some((name) => fault === name || fault.startsWith(`${name}-`));
}

/** The part of a `cluster-state` event that says which nodes are up and reach each other. */
export type Harm = Pick<ClusterState, 'down' | 'cut' | 'promoted'>;

/** State of a cluster of which the kit harms nothing. */
export const NO_HARM: Harm = { down: [], cut: [] };

/** Returns the node of a service: `server@a` runs on a. */
export function nodeOf(service: string): string {
  return service.slice(service.lastIndexOf('@') + 1);
}

/** Returns whether the kit harms nothing in this state. */
export function isHealed({ down, cut }: Harm): boolean {
  return down.length === 0 && cut.length === 0;
}

/** Returns whether two states say the same of every node and link, in any order. */
export function isSameHarm(one: Harm, other: Harm): boolean {
  const key = ({ down, cut, promoted = [] }: Harm) =>
    JSON.stringify([[...down].sort(), cut.map(([from, to]) => `${from} ${to}`).sort(), [...promoted].sort()]);
  return key(one) === key(other);
}

/**
 * Returns the groups of nodes that are up and reach each other, also through other nodes of the group; the largest first.
 * @param nodes all nodes of the target.
 */
export function connectedGroups(nodes: readonly string[], harm: Harm): string[][] {
  const left = new Set(nodes.filter((node) => !harm.down.includes(node)));
  const groups: string[][] = [];
  for (const first of left) {
    left.delete(first);
    const group = [first];
    for (const node of group)
      for (const other of left)
        if (isLinked(harm, node, other)) {
          left.delete(other);
          group.push(other);
        }
    groups.push(group);
  }
  return groups.sort((one, other) => other.length - one.length);
}

/**
 * Returns the nodes that are cut off into a minority: they are up, at least one link is cut, and their group (see
 * `connectedGroups`) has at most half of all nodes. A node that was promoted is excepted.
 */
export function cutOffNodes(nodes: readonly string[], harm: Harm): Set<string> {
  if (harm.cut.length === 0) return new Set();
  const minorities = connectedGroups(nodes, harm).filter((group) => group.length * 2 <= nodes.length);
  return new Set(minorities.flat().filter((node) => !(harm.promoted ?? []).includes(node)));
}

/**
 * Returns the nodes that must confirm messages in this state; an empty list if nothing is demanded. They are the largest
 * group, if all of this is true:
 * - It is the only one of its size, or the only one of these with a node that was promoted.
 * - Each of its nodes reaches each other one directly.
 * - At most `tolerates` nodes are outside of it.
 * - It is a majority of all nodes, or it has a node that was promoted.
 */
export function servingNodes(nodes: readonly string[], harm: Harm, tolerates: number): string[] {
  const hasPromoted = (group: readonly string[]) =>
    group.some((node) => (harm.promoted ?? []).includes(node));
  const groups = connectedGroups(nodes, harm);
  const large = groups.filter(({ length }) => length === groups[0]?.length);
  // Of two halves, the one that was promoted goes on.
  const candidates = large.length > 1 ? large.filter(hasPromoted) : large;
  const [largest = []] = candidates;
  const isUnique = candidates.length === 1;
  const isTolerated = nodes.length - largest.length <= tolerates;
  const decides = largest.length * 2 > nodes.length || hasPromoted(largest);
  const isDirect = largest.every((one) =>
    largest.every((other) => one === other || isLinked(harm, one, other)),
  );
  return isUnique && isTolerated && decides && isDirect ? largest : [];
}

function isLinked({ cut }: Harm, one: string, other: string): boolean {
  return !cut.some(([from, to]) => (from === one && to === other) || (from === other && to === one));
}

/** Says in a phrase what is cut and down: `a is cut off from b and c; b is down`. Empty when nothing is. */
export function describeHarm({ down, cut, promoted = [] }: Harm): string {
  const isCut = (from: string, to: string) => cut.some(([x, y]) => x === from && y === to);
  const parts: string[] = [];
  /** Links in both directions that are not named yet, by their nodes. */
  const peers = new Map<string, Set<string>>();
  for (const [from, to] of cut) if (isCut(to, from)) peers.set(from, (peers.get(from) ?? new Set()).add(to));
  for (;;) {
    const [[node, others] = [undefined, undefined]] = [...peers].sort(([, a], [, b]) => b.size - a.size);
    if (node === undefined || others === undefined || others.size === 0) break;
    parts.push(`${node} is cut off from ${listOf([...others])}`);
    peers.delete(node);
    for (const other of peers.values()) other.delete(node);
  }
  for (const [from, to] of cut) if (!isCut(to, from)) parts.push(`nothing comes from ${from} to ${to}`);
  if (down.length > 0) parts.push(`${listOf(down)} ${down.length === 1 ? 'is' : 'are'} down`);
  if (promoted.length > 0)
    parts.push(`${listOf(promoted)} ${promoted.length === 1 ? 'was' : 'were'} promoted`);
  return parts.join('; ');
}

/** Writes names as a list in a sentence: `a, b and c`. */
export function listOf(names: readonly string[]): string {
  if (names.length < 2) return names.join('');
  return `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}
