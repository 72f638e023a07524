import type { Fault, FaultContext, Injection } from '../fault.js';
import { hit, killServices, miss } from '../injection.js';
import { findPrimary, healLinks, nodeNames, promoteOne } from '../link/cluster-steps.js';
import { confirmWithout, drawLost, returnEmpty } from '../link/empty-node.js';
import { list } from '../link/shapes.js';
import { AVAILABLE } from '../programs.js';
import { sample } from '../random-choice.js';

/**
 * Kills a node, and its disk is gone. The others go on confirming without it. Then it comes back with an empty disk and
 * joins again. In a cluster whose operator promotes nodes, the lost node is the primary in three of four draws, and another is
 * promoted.
 *
 * A round has at most one such fault: until the new node holds everything again, a second loss may take the only copy, and
 * the kit cannot see when that is.
 */
export const nodeLoss: Fault = {
  name: 'node-loss',
  family: 'node-loss',
  summary: 'the disk of one node is gone: what was confirmed is on others too',
  needs: { target: 'up', disk: 'any', nodes: 'cluster' },
  actsOnStoredData: true,
  oncePerRound: true,
  holdsReceivers: 'always',
  available: async () => AVAILABLE,
  async inject(context: FaultContext): Promise<Injection> {
    const { cluster, random, signal } = context;
    if (cluster === undefined) return miss('the target has one node');
    if (cluster.tolerates < 1) return miss('the target does not claim to survive the loss of a node');
    const names = nodeNames(cluster);
    const primary = cluster.promote === undefined ? undefined : await findPrimary(cluster);
    if (cluster.promote !== undefined && primary === undefined)
      return miss('the primary is not known: no node confirmed, or more than one');
    const lost = drawLost(random, names, primary);
    const promotes = lost === primary;
    const node = cluster.nodes.find(({ name }) => name === lost);
    const others = names.filter((name) => name !== lost);
    cluster.noteState({ down: [lost], cut: [] });
    const stoppedMs = performance.now();
    const killed = await killServices(node?.services ?? []);
    if (killed.length === 0) return { ...miss(`no service of ${lost} had a process`), nodes: [] };
    let story = `${lost} and its disk lost`;
    if (promotes) {
      const candidates = sample(random, others, others.length);
      story += `, ${await promoteOne(cluster, candidates, cluster.electionMs, signal)}`;
    }
    const meanwhile = await confirmWithout(context, cluster, { lost, promotes });
    const confirmed = await returnEmpty(cluster, lost, meanwhile);
    const detail = `${story}, ${meanwhile} confirmed by ${list(others)}; ${lost} started with an empty disk`;
    return {
      ...hit(confirmed ? detail : `${detail}; nothing was confirmed afterwards`, 'machine', killed),
      hit: confirmed,
      nodes: [lost],
      failingMs: Math.round(performance.now() - stoppedMs),
    };
  },
  heal: healLinks,
};
