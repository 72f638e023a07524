import { KitError } from '../../conformance/errors.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { portNames } from '../../conformance/target-file/placeholders.js';
import { releasePort, reservePort } from '../host/ports.js';
import type { Registry } from '../host/registry.js';
import type { NodeNetwork } from '../runtime/nodes/node-network.js';
import type { PreparedRuntime } from '../runtime/runtime.js';

/** What a target may have written to its disks about where it runs: the addresses of its nodes, and its ports. */
export interface RecordedPlace {
  /** IPv4 addresses by node. */
  addresses: ReadonlyMap<string, string>;
  /** Port by the name in `{port:name}`; '' for `{port}`. */
  ports: ReadonlyMap<string, number>;
}

/** Where a target is launched: a free port for each name, and for a target with nodes their network. */
export interface LaunchPlace {
  ports: ReadonlyMap<string, number>;
  network: NodeNetwork | undefined;
  /** Releases the ports and removes the network. It can be called from an exit handler, and more than once. */
  remove(): void;
}

/**
 * Makes the place of a target.
 * @param like place of an earlier run of the same cluster. The nodes get the same addresses if no other network of this
 *   machine has them, and the same ports.
 * @throws KitError target-unavailable when the runtime cannot run several nodes. Nothing is left then.
 */
export async function makePlace(
  target: Target,
  runtime: PreparedRuntime,
  registry: Registry,
  like?: RecordedPlace,
): Promise<LaunchPlace> {
  const network = target.nodes && (await makeNetwork(target.nodes, runtime, registry, like));
  const ports = new Map<string, number>();
  const remove = () => {
    for (const port of ports.values()) releasePort(port);
    network?.remove();
  };
  try {
    // In the network of a cluster every port is free. The reservation only keeps other targets of this process away.
    for (const name of portNames(target)) ports.set(name, like?.ports.get(name) ?? (await reservePort()));
  } catch (error) {
    remove();
    throw error;
  }
  return { ports, network, remove };
}

async function makeNetwork(
  nodes: readonly string[],
  runtime: PreparedRuntime,
  registry: Registry,
  like: RecordedPlace | undefined,
): Promise<NodeNetwork> {
  if (runtime.makeNetwork !== undefined)
    return runtime.makeNetwork(nodes, registry, like?.addresses.get(nodes[0] ?? ''));
  throw new KitError(
    'target-unavailable',
    `the runtime ${runtime.name} cannot run a target with several nodes: use --runtime process`,
  );
}
