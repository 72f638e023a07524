import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import type { ClusterContext, Fault, FaultContext, Injection, LinkCut } from '../fault.js';
import { hit, liveServices, miss } from '../injection.js';
import { changeLinks, findPrimary, healLinks, nodeNames, promoteOne } from '../link/cluster-steps.js';
import { between, majorityOf } from '../link/majority.js';
import { list } from '../link/shapes.js';
import { sample } from '../random-choice.js';
import { blocklogAvailability } from './blocklog-availability.js';
import { cutNodes, cuttable } from './cut-nodes.js';

/** Limits of the number of messages that are confirmed while one node is isolated. */
const MIN_CONFIRMS = 10;
const MAX_CONFIRMS = 100;

/** What each node does in the schedule. */
interface Roles {
  /** Node that is isolated first, so that it misses what is confirmed meanwhile. */
  isolated: string;
  /** Node whose power is cut. */
  cut: string;
  /** Other nodes of the next majority, as few as possible. Empty in a cluster of three nodes. */
  helpers: string[];
  /** Nodes that are isolated at the cut. They hold what was confirmed. */
  away: string[];
}

/**
 * Isolates node A and lets the others confirm messages. Then it cuts the power of node X, and only A and X (and as few others
 * as a majority needs) can form the next majority. X had confirmed these messages too: if they are not on its disk, the new
 * majority does not know them, and overwrites them on the nodes that do.
 */
export const cutThenElect: Fault = {
  name: 'cut-then-elect',
  family: 'cut-then-elect',
  summary:
    'a node that missed messages and one that lost its power elect: confirmed means flushed on a majority',
  needs: { target: 'up', disk: 'power', nodes: 'cluster' },
  actsOnStoredData: true,
  holdsReceivers: 'always',
  available: async () => blocklogAvailability(),
  async inject(context: FaultContext): Promise<Injection> {
    const { cluster, random } = context;
    if (cluster === undefined) return miss('the target has one node');
    const names = nodeNames(cluster);
    if (names.length < 3) return miss('a majority of two nodes is both of them: expected at least three');
    if (liveServices(context).length === 0) return miss('no service had a process');
    const primary = cluster.promote === undefined ? undefined : await findPrimary(cluster);
    const roles = chooseRoles(context, names, primary);
    const [victim] = cuttable(cluster.nodes.filter(({ name }) => name === roles.cut));
    if (victim === undefined) return miss(`the data of ${roles.cut} is on a disk whose power cannot be cut`);
    const others = names.filter((name) => name !== roles.isolated);
    const withoutIsolated = between([roles.isolated], others);
    await changeLinks(cluster, { down: [], cut: withoutIsolated });
    const wanted = MIN_CONFIRMS + random.int(MAX_CONFIRMS - MIN_CONFIRMS + 1);
    const first = await cluster.waitForConfirmsBy(others, 1, cluster.electionMs);
    if (first > 0) await syncDisk(victim.dataDir);
    const confirmed =
      first === 0 ? 0 : first + (await cluster.waitForConfirmsBy(others, wanted, cluster.electionMs));
    const story = `${roles.isolated} isolated, ${confirmed} confirmed by ${list(others)}`;
    if (confirmed === 0)
      return { ...miss(`${story}: nothing that the power cut could lose`), nodes: [roles.isolated] };
    if (context.signal.aborted) return { ...miss(`${story}; interrupted`), nodes: [roles.isolated] };

    const nextMajority = [roles.isolated, roles.cut, ...roles.helpers];
    const away = between(roles.away, nextMajority);
    const cutOff: LinkCut[] = [...withoutIsolated, ...between(roles.away, [roles.cut, ...roles.helpers])];
    const power = await cutNodes([victim], random, {
      whileStopped: () => changeLinks(cluster, { down: [roles.cut], cut: cutOff }),
    });
    await changeLinks(cluster, { down: [roles.cut], cut: away });
    await cluster.start(roles.cut);
    cluster.noteState({ down: [], cut: away });
    const promoted = await promoteIfNeeded(context, cluster, roles, primary);
    // The node whose power was cut has to recover before it can take part in an election.
    const afterwards = await cluster.waitForConfirmsBy(nextMajority, 1, 2 * cluster.electionMs);
    const detail = `${story}; ${power.detail}; ${list(roles.away)} cut off${promoted}, ${afterwards} confirmed by ${list(nextMajority)}`;
    const judged = hit(detail, 'machine', power.services);
    return {
      ...judged,
      ...(afterwards === 0 && { hit: false, detail: `${detail}: they formed no majority` }),
      nodes: [roles.isolated, roles.cut],
      failingMs: Math.round(performance.now() - power.stoppedMs),
      ...(power.lostFiles && { lostFiles: power.lostFiles }),
    };
  },
  heal: healLinks,
};

/** Upper bound in ms of the sync of a disk. */
const SYNC_TIMEOUT_MS = 30_000;

/**
 * Writes everything to a disk that this machine can see, as the kernel does by itself after some seconds. The cut then takes
 * only what was confirmed since. Without it, a cut in the first seconds takes the files that the target has just made, and it
 * may not start at all.
 */
async function syncDisk(dataDir: string): Promise<void> {
  if (!existsSync(dataDir)) return;
  await promisify(execFile)('sync', ['-f', dataDir], { timeout: SYNC_TIMEOUT_MS });
}

/**
 * Draws the roles. In a cluster whose operator promotes nodes, the primary is not isolated first: nothing would be confirmed
 * meanwhile.
 */
function chooseRoles({ random }: FaultContext, names: readonly string[], primary: string | undefined): Roles {
  const isolated = random.pick(names.filter((name) => name !== primary));
  const [cut = '', ...others] = sample(
    random,
    names.filter((name) => name !== isolated),
    names.length - 1,
  );
  const helperCount = majorityOf(names.length) - 2;
  return { isolated, cut, helpers: others.slice(0, helperCount), away: others.slice(helperCount) };
}

/** Promotes the node whose power was cut when the primary is not in the next majority. Resolves to a phrase for people. */
async function promoteIfNeeded(
  { signal }: FaultContext,
  cluster: ClusterContext,
  roles: Roles,
  primary: string | undefined,
): Promise<string> {
  if (primary === undefined || !roles.away.includes(primary)) return '';
  return `, ${await promoteOne(cluster, [roles.cut], cluster.electionMs, signal)}`;
}
