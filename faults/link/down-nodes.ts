import type { FaultContext, FaultNode } from '../fault.js';
import { quorumOf } from './majority.js';

/** Upper bound in ms of the wait for the nodes that are left. A claim of a longer time must not take the whole round. */
const MAX_ELECTION_MS = 10_000;
/** Upper bound of the confirmations that are waited for. */
const MAX_CONFIRMS = 50;

/** Records that these nodes are about to go down. Does nothing for a target without nodes. */
export function noteDown({ cluster }: FaultContext, nodes: readonly FaultNode[]): void {
  cluster?.noteState({ down: nodes.map(({ name }) => name), cut: [] });
}

/** Records that the kit holds no node down any more: the round starts what is down. It may be called twice. */
export async function healNotes({ cluster }: FaultContext): Promise<void> {
  cluster?.noteState({ down: [], cut: [] });
}

/**
 * In half of the draws, waits until the nodes that the fault left have confirmed messages, so that the others come back to
 * a cluster that went on without them. Does nothing when too few are left.
 * @returns a phrase for people, empty when nothing was waited for.
 */
export async function letOthersConfirm(context: FaultContext): Promise<string> {
  const { cluster, nodes, random } = context;
  if (cluster === undefined) return '';
  const harmed = new Set(nodes.map(({ name }) => name));
  const others = cluster.nodes.map(({ name }) => name).filter((name) => !harmed.has(name));
  if (others.length < quorumOf(cluster.nodes.length, cluster.tolerates)) return '';
  if (random.int(2) === 0) return '';
  const timeoutMs = Math.min(cluster.electionMs, MAX_ELECTION_MS);
  const confirmed = await cluster.waitForConfirmsBy(others, 1 + random.int(MAX_CONFIRMS), timeoutMs);
  return `; then ${confirmed} confirmed by ${others.join(', ')}`;
}
