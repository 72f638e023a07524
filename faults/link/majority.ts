/*
 * Which nodes of a cluster can still work together when links are cut, which of them may confirm, and which count as
 * harmed. Pure functions: names of nodes in the order of the target file, and cuts, each in one direction.
 *
 * Two nodes work together only if both directions between them carry packets: a connection needs the answers too.
 */
import type { LinkCut } from '../fault.js';

/** Returns the number of nodes that are more than half of all. */
export function majorityOf(nodeCount: number): number {
  return Math.floor(nodeCount / 2) + 1;
}

/**
 * Returns the smallest number of nodes that may confirm together: a majority, or those that are left when as many have
 * failed as the target tolerates, if these are fewer. The second case is a pair with a primary.
 */
export function quorumOf(nodeCount: number, tolerates: number): number {
  return Math.max(1, Math.min(majorityOf(nodeCount), nodeCount - tolerates));
}

/** Returns the nodes that can reach each other, directly or through others; the largest group first. */
export function componentsOf(nodes: readonly string[], cut: readonly LinkCut[]): string[][] {
  const isLinked = linkTest(cut);
  const seen = new Set<string>();
  const components: string[][] = [];
  for (const start of nodes) {
    if (seen.has(start)) continue;
    const reached = new Set([start]);
    for (const node of reached)
      for (const other of nodes) if (!reached.has(other) && isLinked(node, other)) reached.add(other);
    for (const node of reached) seen.add(node);
    components.push(nodes.filter((node) => reached.has(node)));
  }
  return components.sort((first, second) => second.length - first.length);
}

/** Returns the nodes that are not in the largest group. They count as harmed in the fault budget. */
export function harmedBy(nodes: readonly string[], cut: readonly LinkCut[]): string[] {
  const [largest = []] = componentsOf(nodes, cut);
  return nodes.filter((node) => !largest.includes(node));
}

/** Returns the nodes that reach at least a quorum directly, themselves included. No other node may confirm. */
export function mayConfirm(nodes: readonly string[], cut: readonly LinkCut[], quorum: number): string[] {
  const isLinked = linkTest(cut);
  return nodes.filter(
    (node) => nodes.filter((other) => other === node || isLinked(node, other)).length >= quorum,
  );
}

/** Returns the cuts that separate two groups of nodes, in both directions or only from the first to the second. */
export function between(
  from: readonly string[],
  to: readonly string[],
  directions: 'both' | 'one' = 'both',
): LinkCut[] {
  return from.flatMap((a) =>
    to.flatMap((b): LinkCut[] =>
      directions === 'one'
        ? [[a, b]]
        : [
            [a, b],
            [b, a],
          ],
    ),
  );
}

/** Makes a function that reports whether two nodes exchange packets directly, in both directions. */
function linkTest(cut: readonly LinkCut[]): (a: string, b: string) => boolean {
  // No name of a node has a space.
  const isCut = new Set(cut.map(([from, to]) => `${from} ${to}`));
  return (a, b) => !isCut.has(`${a} ${b}`) && !isCut.has(`${b} ${a}`);
}
