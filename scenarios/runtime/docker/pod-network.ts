import { randomBytes } from 'node:crypto';
import { KitError } from '../../../conformance/errors.js';
import type { Registry } from '../../host/registry.js';
import { nodeNetworkAvailability } from '../nodes/availability.js';
import { createNodeNetwork } from '../nodes/namespace-network.js';
import { knownNode } from '../nodes/node-links.js';
import type { NodeNetwork } from '../nodes/node-network.js';
import { withEnd } from '../nodes/with-end.js';
import type { NetworkContext } from './container-network.js';
import { nodePodOptions } from './container-options.js';
import { localContainerProcesses } from './container-processes.js';
import { removeDeployment, toEngineError } from './engine.js';

/** A pod that runs. */
interface Pod {
  id: string;
  /** Process id of its program. */
  pid: number;
}

/**
 * Makes the network of a cluster whose nodes are groups of containers. Each node has a pod, a container without a network of the
 * engine. The kit links the pods' network namespaces with each other and with itself, as it links those of nodes that are plain
 * processes. A bridge of the engine would be of no use: its packets pass the firewall of this machine, which the kit does not
 * change.
 * @throws KitError target-unavailable when it cannot be made; nothing is left then.
 */
export async function createPodNetwork(
  nodes: readonly string[],
  registry: Pick<Registry, 'runId' | 'made' | 'gone'>,
  context: NetworkContext,
): Promise<NodeNetwork> {
  const availability = nodeNetworkAvailability();
  if (!availability.available)
    throw new KitError(
      'target-unavailable',
      `nodes of a cluster under --runtime docker: ${availability.why}; ${availability.remedy}`,
    );
  const { engine, address } = context;
  const resource = { kind: 'containers', engine: address } as const;
  const mark = `${registry.runId}.${randomBytes(4).toString('hex')}`;
  // The containers of the nodes are registered here, and not by each node: the first one that ends would strike them all out.
  const end = async () => {
    await removeDeployment(engine, mark);
    registry.gone(resource);
  };
  registry.made(resource);
  try {
    const started = await Promise.allSettled(
      nodes.map((node) => startPod(node, registry.runId, mark, context)),
    );
    const pods = new Map<string, Pod>();
    for (const [index, result] of started.entries()) {
      if (result.status === 'rejected') throw result.reason;
      pods.set(nodes[index] ?? '', result.value);
    }
    const ids = new Map([...pods].map(([node, { id }]) => [node, id]));
    const holders = new Map([...pods].map(([node, { pid }]) => [node, pid]));
    const network = await createNodeNetwork(nodes, registry, { holders });
    return Object.assign(network, {
      podOf: (node: string) => knownNode(ids, node),
      ...withEnd(network.remove.bind(network), end),
    });
  } catch (error) {
    await end().catch(() => {});
    throw toEngineError(error, address);
  }
}

async function startPod(
  node: string,
  runId: string,
  mark: string,
  { engine, address, podImage }: NetworkContext,
): Promise<Pod> {
  const pod = await engine.createContainer(
    nodePodOptions({ name: `plugpull-${mark}.${node}`, image: podImage, node, runId, mark }),
  );
  await pod.start();
  const { State } = await pod.inspect();
  if (localContainerProcesses(State.Pid, pod.id) === undefined)
    throw new KitError(
      'target-unavailable',
      `the containers of the engine at ${address} are not processes of this machine: a local engine is needed`,
    );
  return { id: pod.id, pid: State.Pid };
}
