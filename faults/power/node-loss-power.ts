import type { Fault, FaultContext, Injection } from '../fault.js';
import { hit, killServices, liveServices, miss } from '../injection.js';
import { findPrimary, healLinks, nodeNames, promoteOne } from '../link/cluster-steps.js';
import { confirmWithout, drawLost, returnEmpty } from '../link/empty-node.js';
import { list } from '../link/shapes.js';
import { sample } from '../random-choice.js';
import { sleep } from '../waiting.js';
import { blocklogAvailability } from './blocklog-availability.js';
import { cutNodes, cuttable } from './cut-nodes.js';

/**
 * Upper bound in ms of the time between the stop of the disks and the death of the nodes. An answer in this time did not wait for
 * the disk. Without it, nodes that flush a moment after they answer would rarely be caught.
 */
const MAX_ANSWERS_MS = 200;

/**
 * The disk of one node is lost, and at the same instant the power of all others is cut. What the lost node had confirmed is
 * now only where another node has flushed it: a copy in the page cache of the others is gone. The others start from their
 * disks and confirm on, and the lost node comes back empty.
 *
 * The lost node is the one that confirms in most draws. In a cluster whose operator promotes nodes, another is promoted then.
 * A round has at most one such fault; see `nodeLoss`.
 */
export const nodeLossPower: Fault = {
  name: 'node-loss-power',
  family: 'node-loss',
  alsoClaimed: ['power-cut'],
  summary:
    'the disk of one node is gone and the others lose their power: what was confirmed was flushed on others too',
  needs: { target: 'up', disk: 'power', nodes: 'cluster' },
  actsOnStoredData: true,
  oncePerRound: true,
  holdsReceivers: 'always',
  available: async () => blocklogAvailability(),
  async inject(context: FaultContext): Promise<Injection> {
    const { cluster, random, signal } = context;
    if (cluster === undefined) return miss('the target has one node');
    if (cluster.tolerates < 1) return miss('the target does not claim to survive the loss of a node');
    const names = nodeNames(cluster);
    const primary = await findPrimary(cluster);
    if (cluster.promote !== undefined && primary === undefined)
      return miss('the primary is not known: no node confirmed, or more than one');
    const lost = drawLost(random, names, primary);
    const others = names.filter((name) => name !== lost);
    const node = cluster.nodes.find(({ name }) => name === lost);
    const cutOnes = cuttable(cluster.nodes.filter(({ name }) => name !== lost));
    if (cutOnes.length < others.length)
      return miss(`the data of ${list(others)} is on disks whose power cannot be cut`);
    if (liveServices(context).length === 0) return miss('no service had a process');

    cluster.noteState({ down: names, cut: [] });
    let killed: string[] = [];
    const power = await cutNodes(cutOnes, random, {
      beforeKill: () => sleep(random.int(MAX_ANSWERS_MS), signal),
      whileStopped: async () => {
        killed = await killServices(node?.services ?? []);
      },
    });
    for (const name of others) await cluster.start(name);
    cluster.noteState({ down: [lost], cut: [] });
    let story = `${lost} and its disk lost; ${power.detail}`;
    const promotes = cluster.promote !== undefined && lost === primary;
    if (promotes) {
      const candidates = sample(random, others, others.length);
      story += `; ${await promoteOne(cluster, candidates, cluster.electionMs, signal)}`;
    }
    const meanwhile = await confirmWithout(context, cluster, { lost, promotes });
    const confirmed = await returnEmpty(cluster, lost, meanwhile);
    const detail = `${story}; ${meanwhile} confirmed by ${list(others)}; ${lost} started with an empty disk`;
    return {
      ...hit(confirmed ? detail : `${detail}; nothing was confirmed afterwards`, 'machine', [
        ...killed,
        ...power.services,
      ]),
      hit: confirmed,
      nodes: names,
      failingMs: Math.round(performance.now() - power.stoppedMs),
      ...(power.lostFiles && { lostFiles: power.lostFiles }),
    };
  },
  heal: healLinks,
};
