import { randomBytes } from 'node:crypto';
import { KitError } from '../../../conformance/errors.js';
import type { Registry } from '../../host/registry.js';
import { nodeNetworkAvailability } from '../nodes/availability.js';
import { createNodeNetwork } from '../nodes/namespace-network.js';
import type { NodeNetwork } from '../nodes/node-network.js';
import type { NetworkContext } from './container-network.js';
import { nodePodOptions } from './container-options.js';
import { localContainerProcesses } from './container-processes.js';
import { removeDeployment, toEngineError } from './engine.js';

/** A pod that runs. */
interface Pod {
  id: string;
  /** Process id of its program. */
  pid: number;
  /** Mark of its container; see `deploymentLabels`. */
  mark: string;
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
      `nodes of a cluster under --runtime docker: ${availability.why}; the links of containers need root (sudo)`,
    );
  const { engine, address } = context;
  const resource = { kind: 'containers', engine: address } as const;
  const prefix = `${registry.runId}.${randomBytes(4).toString('hex')}`;
  const markOf = (node: string) => `${prefix}.${node}`;
  const left = new Set(nodes);
  const removePod = async (node: string) => {
    await removeDeployment(engine, markOf(node));
    left.delete(node);
  };
  // The containers of the nodes are registered here, and not by each node: the first one that ends would strike them all out.
  const removePods = async () => {
    await Promise.all([...left].map(removePod));
    registry.gone(resource);
  };
  registry.made(resource);
  try {
    const started = await Promise.allSettled(
      nodes.map((node) => startPod(node, registry.runId, markOf(node), context)),
    );
    const pods = new Map<string, Pod>();
    for (const [index, result] of started.entries()) {
      if (result.status === 'rejected') throw result.reason;
      pods.set(nodes[index] ?? '', result.value);
    }
    const holders = new Map([...pods].map(([node, { pid }]) => [node, pid]));
    const network = await createNodeNetwork(nodes, registry, holders);
    return Object.assign(network, {
      pods: { idOf: (node: string) => idIn(pods, node), remove: removePod },
      remove: withPods(network.remove.bind(network), removePods),
    });
  } catch (error) {
    await removePods().catch(() => {});
    throw toEngineError(error, address);
  }
}

/** Removes the network and then the pods that are left. Those are removed a moment later: the engine is asked to do it. */
function withPods(remove: () => void, removePods: () => Promise<void>): () => void {
  let isRemoved = false;
  return () => {
    remove();
    if (isRemoved) return;
    isRemoved = true;
    // What stays is on the list of the run, and `clean` removes it.
    removePods().catch(() => {});
  };
}

function idIn(pods: ReadonlyMap<string, Pod>, node: string): string {
  const pod = pods.get(node);
  if (pod === undefined)
    throw new Error(`${node}: no such node, expected one of ${[...pods.keys()].join(', ')}`);
  return pod.id;
}

async function startPod(
  node: string,
  runId: string,
  mark: string,
  { engine, address, podImage }: NetworkContext,
): Promise<Pod> {
  const pod = await engine.createContainer(
    nodePodOptions({ name: `plugpull-${mark}`, image: podImage, node, runId, mark }),
  );
  await pod.start();
  const { State } = await pod.inspect();
  if (localContainerProcesses(State.Pid, pod.id) === undefined)
    throw new KitError(
      'target-unavailable',
      `the containers of the engine at ${address} are not processes of this machine: a local engine is needed`,
    );
  return { id: pod.id, pid: State.Pid, mark };
}
