import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { KitError, messageOf } from '../../../conformance/errors.js';
import type { LinkCut } from '../../../faults/fault.js';
import { RUN_VARIABLE } from '../../host/dead-runs.js';
import type { Registry } from '../../host/registry.js';
import { nodeNetworkAvailability, nodeNetworkMethod } from './availability.js';
import { BRIDGE_FILE, KIT_LINK, namespaceIn, removeNetwork } from './namespaces.js';
import { runNetworkTool, ToolError } from './network-tools.js';
import { knownNode, NODE_LINK, NodeLinks } from './node-links.js';
import type { NodeNetwork } from './node-network.js';
import { freeSubnets, PREFIX_BITS, type Subnet, subnetIndexOf } from './subnets.js';

const BRIDGE = 'bridge0';
/** Directory for the files of the namespaces: memory, where every user may make directories. */
const SHARED_MEMORY = '/dev/shm';
/** Directory that is missing where the kernel has no IPv6. */
const IPV6 = '/proc/sys/net/ipv6';
/** Answer of the kernel when a link of this name exists. */
const NAME_IS_TAKEN = /File exists/;

/**
 * Makes the network of a cluster from Linux network namespaces: one per node, and one with a bridge that connects them. The
 * machine's own network gets a single link, to the bridge, with an address of a subnet that is this network's alone. The links
 * have no IPv6 addresses of their own: the kernel would delay them until it has looked for duplicates.
 * @param options.holders processes by node, where the nodes have namespaces already: that of the process becomes part of the
 *   network. It has no link but loopback yet.
 * @param options.firstAddress address that the first node should have; see `PreparedRuntime.makeNetwork`.
 * @throws KitError target-unavailable when it cannot be made; nothing is left then.
 */
export async function createNodeNetwork(
  nodes: readonly string[],
  registry: Pick<Registry, 'runId' | 'made' | 'gone'>,
  {
    holders = new Map(),
    firstAddress,
  }: { holders?: ReadonlyMap<string, number>; firstAddress?: string | undefined } = {},
): Promise<NodeNetwork> {
  const availability = nodeNetworkAvailability();
  if (!availability.available)
    throw new KitError(
      'target-unavailable',
      `nodes of a cluster: ${availability.why}; ${availability.remedy}`,
    );
  const network = new NamespaceNetwork(nodes, registry, holders);
  try {
    await network.setUp(firstAddress === undefined ? undefined : subnetIndexOf(firstAddress));
  } catch (error) {
    network.remove();
    throw new KitError('target-unavailable', `the network of the nodes cannot be made: ${messageOf(error)}`, {
      cause: error,
    });
  }
  return network;
}

class NamespaceNetwork implements NodeNetwork {
  readonly addresses = new Map<string, string>();
  readonly #nodes: readonly string[];
  readonly #registry: Pick<Registry, 'runId' | 'made' | 'gone'>;
  readonly #holders: ReadonlyMap<string, number>;
  readonly #dir: string;
  readonly #namespaces = new Map<string, string>();
  readonly #links: NodeLinks;
  readonly impair?: NonNullable<NodeNetwork['impair']>;

  constructor(
    nodes: readonly string[],
    registry: Pick<Registry, 'runId' | 'made' | 'gone'>,
    holders: ReadonlyMap<string, number>,
  ) {
    this.#holders = holders;
    this.#nodes = nodes;
    this.#registry = registry;
    const name = `plugpull-${registry.runId}-net-${randomBytes(4).toString('hex')}`;
    this.#dir = join(existsSync(SHARED_MEMORY) ? SHARED_MEMORY : tmpdir(), name);
    this.#registry.made({ kind: 'network', path: this.#dir });
    const method = nodeNetworkMethod();
    this.#links = new NodeLinks({
      addresses: this.addresses,
      run: (node, command, input) => this.#tool([...this.#inside(node), ...command], input),
      netem: method.how === 'own' && method.netem,
    });
    if (this.#links.impair !== undefined) this.impair = this.#links.impair;
  }

  /** @param preferred number of the subnet to take if it is free. */
  async setUp(preferred?: number): Promise<void> {
    mkdirSync(this.#dir, { mode: 0o700 });
    // A namespace is mounted on its file.
    for (const name of [BRIDGE_FILE, ...this.#nodes]) writeFileSync(this.#fileOf(name), '');
    const [routes = ''] = await allDone([
      this.#tool(['ip', '-4', '-o', 'route', 'show', 'table', 'all']),
      this.#makeBridge(),
    ]);
    const subnet = await this.#linkToKit(routes, preferred);
    for (const [index, node] of this.#nodes.entries()) this.addresses.set(node, subnet.node(index));
    await allDone(this.#nodes.map((node, index) => this.#makeNode(node, index)));
    await this.#batch(this.#inside(BRIDGE_FILE), [
      ...[KIT_LINK, ...this.#nodes.map((_, index) => portOf(index))].flatMap((port) => [
        `link set dev ${port} master ${BRIDGE}`,
        ...up(port),
      ]),
    ]);
    for (const node of this.#nodes) {
      const namespace = namespaceIn(this.#fileOf(node));
      if (namespace === undefined) throw new Error(`no namespace is mounted at ${this.#fileOf(node)}`);
      this.#namespaces.set(node, namespace);
    }
  }

  #makeBridge(): Promise<string> {
    return this.#batch(this.#new(BRIDGE_FILE), [
      // Without these, a port would forward nothing for a time after it is up.
      `link add name ${BRIDGE} type bridge forward_delay 0 stp_state 0 mcast_snooping 0`,
      ...up(BRIDGE),
    ]);
  }

  /**
   * Links the kit to the bridge. The name of the link has the number of the subnet: the kernel makes a name only once, so no two
   * kits get the same subnet, and the number is free again when the link is gone.
   */
  async #linkToKit(routes: string, preferred: number | undefined): Promise<Subnet> {
    for (const subnet of freeSubnets(routes, preferred)) {
      const link = `plugpull-${subnet.index}`;
      try {
        await this.#batch(
          [],
          [
            `link add name ${link} address ${macOf(subnet, 1)} type veth peer name ${KIT_LINK} netns ${this.#fileOf(BRIDGE_FILE)}`,
            // For people, and for whoever looks for what a run has left.
            `link set dev ${link} alias ${basename(this.#dir)}`,
            ...up(link),
            `address add ${subnet.kit}/${PREFIX_BITS} dev ${link}`,
          ],
        );
        return subnet;
      } catch (error) {
        if (!(error instanceof ToolError && NAME_IS_TAKEN.test(error.stderr))) throw error;
      }
    }
    throw new Error('every subnet of 198.18.0.0/15 is in use on this machine');
  }

  async #makeNode(node: string, index: number): Promise<string> {
    const holder = this.#holders.get(node);
    if (holder !== undefined)
      await this.#tool(['mount', '--bind', `/proc/${holder}/ns/net`, this.#fileOf(node)]);
    return this.#batch(holder === undefined ? this.#new(node) : this.#inside(node), [
      'link set dev lo up',
      `link add name ${NODE_LINK} type veth peer name ${portOf(index)} netns ${this.#fileOf(BRIDGE_FILE)}`,
      ...up(NODE_LINK),
      `address add ${this.#addressOf(node)}/${PREFIX_BITS} dev ${NODE_LINK}`,
    ]);
  }

  enter(node: string): readonly string[] {
    this.#addressOf(node);
    return this.#inside(node);
  }

  namespaceOf(node: string): string {
    return knownNode(this.#namespaces, node);
  }

  cut(links: readonly LinkCut[]): Promise<void> {
    return this.#links.cut(links);
  }

  cutConnections(a: string, b: string): Promise<void> {
    return this.#links.cutConnections(a, b);
  }

  healConnections(): Promise<void> {
    return this.#links.healConnections();
  }

  swallowedPackets(): Promise<number> {
    return this.#links.swallowedPackets();
  }

  remove(): void {
    this.#links.close();
    removeNetwork(this.#dir);
    this.#registry.gone({ kind: 'network', path: this.#dir });
  }

  #addressOf(node: string): string {
    return knownNode(this.addresses, node);
  }

  #fileOf(name: string): string {
    return join(this.#dir, name);
  }

  /** Command that runs another one in a namespace of this network. */
  #inside(name: string): string[] {
    return ['nsenter', `--net=${this.#fileOf(name)}`, '--'];
  }

  /** Command that makes a namespace, and runs another one in it. */
  #new(name: string): string[] {
    return ['unshare', `--net=${this.#fileOf(name)}`, '--'];
  }

  #batch(where: readonly string[], lines: readonly string[]): Promise<string> {
    return this.#tool([...where, 'ip', '-batch', '-'], `${lines.join('\n')}\n`);
  }

  #tool(command: readonly string[], input?: string): Promise<string> {
    // By this variable, `clean` kills a tool that a killed kit has left behind.
    return runNetworkTool(command, input, { [RUN_VARIABLE]: this.#registry.runId });
  }
}

/**
 * Waits until all have ended, also when one fails: no tool may make anything when the network is being removed.
 * @throws the first error.
 */
async function allDone<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

/** Returns the lines that start a link without an IPv6 address: an address that it has got could not be taken away later. */
function up(link: string): string[] {
  const noAddress = existsSync(IPV6) ? [`link set dev ${link} addrgenmode none`] : [];
  return [...noAddress, `link set dev ${link} up`];
}

const portOf = (index: number): string => `port${index}`;

/** Returns a fixed link-layer address. Programs that manage networks replace addresses that the kernel has chosen. */
function macOf({ index }: Subnet, host: number): string {
  const byte = (value: number) => value.toString(16).padStart(2, '0');
  return `02:50:50:${byte(index >>> 8)}:${byte(index & 255)}:${byte(host)}`;
}
