/*
 * The steps that the faults with a lost disk share: which node is lost, how the others go on, and how it comes back.
 */
import type { ClusterContext, FaultContext, Random } from '../fault.js';
import { nodeNames, waitForRest } from './cluster-steps.js';

/** Upper bound of the confirmations of the other nodes before the lost one comes back. */
const MAX_CONFIRMS = 50;
/** Upper bound in ms of the wait for them, when they are no majority but one of them was promoted. */
const MAX_PROMOTED_WAIT_MS = 5000;

/**
 * Draws the node whose disk is lost: three times in four the one that confirms, if it is known. Its disk is the one that
 * surely has what was confirmed.
 */
export function drawLost(random: Random, names: readonly string[], primary: string | undefined): string {
  if (primary !== undefined && random.int(4) > 0) return primary;
  return random.pick(names.filter((name) => name !== primary));
}

/**
 * Waits for confirmations without the lost node. The wait is short when the others are no majority: the node that is left of a
 * pair may need the other one to confirm anything, also after a promotion.
 * @returns the number of confirmations.
 */
export async function confirmWithout(
  { random }: Pick<FaultContext, 'random'>,
  cluster: ClusterContext,
  { lost, promotes }: { lost: string; promotes: boolean },
): Promise<number> {
  const names = nodeNames(cluster);
  const others = names.filter((name) => name !== lost);
  const wanted = 1 + random.int(MAX_CONFIRMS);
  return waitForRest(cluster, others, wanted, promotes ? MAX_PROMOTED_WAIT_MS : undefined);
}

/**
 * Starts the lost node with an empty disk. If nothing was confirmed without it, waits for a confirmation of any node.
 * @param meanwhile number of messages that were confirmed without it.
 * @returns whether something was confirmed since the loss.
 */
export async function returnEmpty(
  cluster: ClusterContext,
  lost: string,
  meanwhile: number,
): Promise<boolean> {
  await cluster.replaceDisk(lost, { install: true });
  await cluster.start(lost);
  cluster.noteState({ down: [], cut: [] });
  if (meanwhile > 0) return true;
  return (await cluster.waitForConfirmsBy(nodeNames(cluster), 1, cluster.electionMs)) > 0;
}
