import type { ClusterContext, Fault, FaultNode, Injection, Random } from '../../faults/fault.js';
import { waitForRest } from '../../faults/link/cluster-steps.js';
import { sample } from '../../faults/random-choice.js';
import type { PlannedInjection } from './schedule.js';

/** Number of confirmations for which a cluster works without the nodes that a fault has taken. */
const CONFIRMS_WITHOUT = 20;

/**
 * Draws the nodes on which a fault acts. The cut right after the install, and a cut in the recovery from another one, act on
 * all nodes: there is no message that a single node could lose. In a replay they are those of the run.
 *
 * A scope may be larger than `tolerates`. The cluster stops then, and still must lose nothing that was synced.
 * @param actsFirst true until the fault has acted on one node in this round: its first injection acts on one, so that a round
 *   always measures what the cluster tolerates.
 */
export function chooseScope(
  { needs }: Pick<Fault, 'needs'>,
  planned: Pick<PlannedInjection, 'beforeStart' | 'inRecovery' | 'nodes'>,
  { nodes, tolerates }: Pick<ClusterContext, 'nodes' | 'tolerates'>,
  random: Random,
  actsFirst = false,
): FaultNode[] {
  const repeated = nodes.filter(({ name }) => planned.nodes?.includes(name));
  if (repeated.length > 0) return repeated;
  const kind = needs.nodes ?? 'one';
  if (kind === 'cluster') return [...nodes];
  const some = (count: number) => sample(random, nodes, count);
  if (kind === 'one') return some(1);
  if (planned.beforeStart === true || planned.inRecovery !== undefined) return [...nodes];
  const dice = random.int(10);
  if (actsFirst || dice < 4) return some(1);
  if (dice < 6) return some(1 + random.int(Math.max(1, tolerates)));
  if (dice < 7) return some(1 + Math.floor(nodes.length / 2));
  return [...nodes];
}

/** Adds the nodes to an injection, and corrects its scope when nodes were left that it did not harm. */
export function withNodes(
  injection: Injection,
  scope: readonly FaultNode[],
  cluster: Pick<ClusterContext, 'nodes'> | undefined,
): Injection {
  if (cluster === undefined) return injection;
  const nodes = injection.nodes ?? scope.map(({ name }) => name);
  const isPart = nodes.length < cluster.nodes.length;
  const crash = injection.scope === 'all-processes' && isPart ? 'some-processes' : injection.scope;
  return { ...injection, nodes, scope: crash };
}

/**
 * Lets the cluster work for a while without the nodes that an injection has taken, in half of the draws: the nodes that are
 * left must confirm again. Otherwise the nodes come back at once.
 */
export async function runWithout(
  { nodes = [], scope }: Injection,
  cluster: ClusterContext,
  random: Random,
): Promise<void> {
  if (scope === 'none' || nodes.length === 0 || nodes.length > cluster.tolerates) return;
  const taken = cluster.nodes.filter(
    ({ name, services }) => nodes.includes(name) && services.every((service) => service.pids().length === 0),
  );
  if (taken.length === 0 || random.int(2) === 0) return;
  const down = taken.map(({ name }) => name);
  cluster.noteState({ down, cut: [] });
  const rest = cluster.nodes.map(({ name }) => name).filter((name) => !down.includes(name));
  await waitForRest(cluster, rest, CONFIRMS_WITHOUT);
}
