import type { ClusterContext, Fault, FaultContext, FaultNode, Injection } from '../fault.js';
import { hit, killServices, miss } from '../injection.js';
import { AVAILABLE } from '../programs.js';
import { logUniformInt, sample } from '../random-choice.js';
import { sleep } from '../waiting.js';
import { healLinks, NO_LIMIT, nodeNames } from './cluster-steps.js';

/** Limits of the time for which the old connections carry nothing, in ms. */
const MIN_STALE_MS = 300;
const MAX_STALE_MS = 10_000;

/**
 * Cuts the connections that exist between two nodes, silently, while new ones are allowed. Later the old ones go on, so that
 * old packets arrive after those of new connections. In some draws, one of the two nodes is killed and started meanwhile: the
 * old packets then meet a process that does not know their connection.
 */
export const staleLink: Fault = {
  name: 'stale-link',
  family: 'stale-link',
  summary: 'connections between two nodes stand still and go on later: an old packet is no new order',
  needs: { target: 'up', disk: 'any', nodes: 'cluster' },
  holdsReceivers: 'sometimes',
  available: async () => AVAILABLE,
  async inject(context: FaultContext): Promise<Injection> {
    const { cluster, random, signal } = context;
    if (cluster === undefined) return miss('the target has one node');
    const [a, b] = sample(random, cluster.nodes, 2);
    if (a === undefined || b === undefined) return miss('the target has one node');
    const staleMs = logUniformInt(random, MIN_STALE_MS, MAX_STALE_MS);
    const kills = cluster.tolerates > 0 && random.int(3) === 0;
    const killAfterMs = Math.round(staleMs * random.real());
    const startMs = performance.now();
    cluster.noteState({ down: [], cut: [] });
    await cluster.links.cutConnections(a.name, b.name);
    const counted = cluster.waitForConfirmsBy(nodeNames(cluster), NO_LIMIT, staleMs);
    let killed: string[] = [];
    if (kills) {
      await sleep(killAfterMs, signal);
      killed = await killAndStart(cluster, a);
    }
    const confirmed = await counted;
    const swallowed = await cluster.links.swallowedPackets();
    await cluster.links.healConnections();
    const tookMs = Math.round(performance.now() - startMs);
    const killing = killed.length === 0 ? '' : `, SIGKILL to ${killed.join(', ')} meanwhile`;
    const detail = `connections between ${a.name} and ${b.name} stood still for ${tookMs} ms${killing}, ${confirmed} confirmed meanwhile, ${swallowed} packets lost`;
    const injection =
      swallowed > 0
        ? hit(detail, killed.length > 0 ? 'some-processes' : 'none', killed)
        : {
            ...miss(`${detail}; no packet was sent on an old connection`, killed),
            scope: killed.length > 0 ? ('some-processes' as const) : ('none' as const),
          };
    return { ...injection, nodes: [a.name, b.name] };
  },
  heal: healLinks,
};

/** Kills a node and starts it again. Resolves to the names of the services that had a process. */
async function killAndStart(cluster: ClusterContext, node: FaultNode): Promise<string[]> {
  cluster.noteState({ down: [node.name], cut: [] });
  const killed = await killServices(node.services);
  await cluster.start(node.name);
  cluster.noteState({ down: [], cut: [] });
  return killed;
}
