import type { ClusterContext, FaultContext, LinkCut } from '../fault.js';
import { until } from '../waiting.js';
import { majorityOf } from './majority.js';

/** A count that no wait reaches: the wait then lasts for its whole time. */
export const NO_LIMIT = Number.MAX_SAFE_INTEGER;
/** Time in ms in which a node that confirms is recognised. */
const RECOGNISE_MS = 1000;
/** Time in ms between two attempts to promote a node that is not ready for it yet. */
const PROMOTE_INTERVAL_MS = 200;

/** Upper bound in ms of the wait for nodes that are no majority. They may be unable to confirm anything alone. */
export const MAX_MINORITY_WAIT_MS = 2000;

/** Returns the names of the nodes, in the order of the target file. */
export function nodeNames({ nodes }: ClusterContext): string[] {
  return nodes.map(({ name }) => name);
}

/**
 * Waits for `count` confirmations by the nodes that are left: as long as an election may take if they are a majority,
 * otherwise at most `minorityMs`. Resolves to the number of confirmations.
 */
export function waitForRest(
  cluster: ClusterContext,
  rest: readonly string[],
  count: number,
  minorityMs = MAX_MINORITY_WAIT_MS,
): Promise<number> {
  const isMajority = rest.length >= majorityOf(cluster.nodes.length);
  const waitMs = isMajority ? cluster.electionMs : Math.min(cluster.electionMs, minorityMs);
  return cluster.waitForConfirmsBy(rest, count, waitMs);
}

/** Records what will be down and cut, and cuts it. */
export async function changeLinks(
  cluster: ClusterContext,
  state: { down: readonly string[]; cut: readonly LinkCut[] },
): Promise<void> {
  cluster.noteState(state);
  await cluster.links.cut(state.cut);
}

/** Heals every link and records it. It may be called twice, and without a cluster. */
export async function healLinks({ cluster }: FaultContext): Promise<void> {
  if (cluster === undefined) return;
  await cluster.links.cut([]);
  await cluster.links.healConnections();
  cluster.noteState({ down: [], cut: [] });
}

/**
 * Finds the primary of a cluster whose operator promotes nodes: the only node that confirms. Resolves to undefined when
 * no node or several confirm within a second.
 */
export async function findPrimary(cluster: ClusterContext): Promise<string | undefined> {
  const names = nodeNames(cluster);
  const counts = await Promise.all(
    names.map((name) => cluster.waitForConfirmsBy([name], NO_LIMIT, RECOGNISE_MS)),
  );
  const confirming = names.filter((_, index) => (counts[index] ?? 0) > 0);
  return confirming.length === 1 ? confirming[0] : undefined;
}

/**
 * Promotes the first of the nodes whose command succeeds: a command may refuse a node that must not take over, and a node
 * may not be ready yet. It tries again for at most `timeoutMs`, or until the run is interrupted.
 * @returns a phrase for people: who was promoted, or why none was.
 */
export async function promoteOne(
  cluster: ClusterContext,
  candidates: readonly string[],
  timeoutMs: number,
  signal: AbortSignal,
): Promise<string> {
  let promoted: string | undefined;
  let why = '';
  const promoteAny = async () => {
    for (const node of candidates) {
      if (signal.aborted) return false;
      try {
        await cluster.promote?.(node);
        promoted = node;
        return true;
      } catch (error) {
        // The next candidate may be able to take over, or this one in a moment.
        why = error instanceof Error ? ` (${error.message.split('\n', 1)[0]})` : '';
      }
    }
    return false;
  };
  await until(promoteAny, timeoutMs, signal, PROMOTE_INTERVAL_MS);
  return promoted === undefined
    ? `${candidates.join(', ')} could not be promoted${why}`
    : `${promoted} promoted`;
}
