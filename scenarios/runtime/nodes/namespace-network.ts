import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { KitError, messageOf } from '../../../conformance/errors.js';
import type { LinkCut } from '../../../faults/fault.js';
import { RUN_VARIABLE } from '../../host/dead-runs.js';
import type { Registry } from '../../host/registry.js';
import { nodeNetworkAvailability, nodeNetworkMethod } from './availability.js';
import {
  type Arriving,
  connectionsIn,
  LIST_COUNTER,
  type NodeCuts,
  packetsIn,
  rulesFor,
} from './cut-rules.js';
import { type Impairment, netemOptions } from './impairment.js';
import { BRIDGE_FILE, KIT_LINK, namespaceIn, removeNetwork } from './namespaces.js';
import { runNetworkTool, ToolError } from './network-tools.js';
import type { NodeNetwork } from './node-network.js';
import { freeSubnets, PREFIX_BITS, type Subnet, subnetIndexOf } from './subnets.js';

/** Name of the interface of a node, as on most machines. */
const NODE_LINK = 'eth0';
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
 * @param firstAddress address that the first node should have; see `PreparedRuntime.makeNetwork`.
 * @throws KitError target-unavailable when it cannot be made; nothing is left then.
 */
export async function createNodeNetwork(
  nodes: readonly string[],
  registry: Pick<Registry, 'runId' | 'made' | 'gone'>,
  firstAddress?: string,
): Promise<NodeNetwork> {
  const availability = nodeNetworkAvailability();
  if (!availability.available)
    throw new KitError(
      'target-unavailable',
      `nodes of a cluster: ${availability.why}; ${availability.remedy}`,
    );
  const network = new NamespaceNetwork(nodes, registry);
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
  readonly #dir: string;
  readonly #namespaces = new Map<string, string>();
  #links: readonly LinkCut[] = [];
  /** Connections that are cut, by the node that receives nothing of them. */
  #connections = new Map<string, Arriving[]>();
  /** Nodes that have rules, or may have some. */
  readonly #withRules = new Set<string>();
  /** The last change of rules. The next one waits for it. */
  #changed: Promise<unknown> = Promise.resolve();
  #isRemoved = false;
  readonly impair?: NonNullable<NodeNetwork['impair']>;

  constructor(nodes: readonly string[], registry: Pick<Registry, 'runId' | 'made' | 'gone'>) {
    this.#nodes = nodes;
    this.#registry = registry;
    const name = `plugpull-${registry.runId}-net-${randomBytes(4).toString('hex')}`;
    this.#dir = join(existsSync(SHARED_MEMORY) ? SHARED_MEMORY : tmpdir(), name);
    this.#registry.made({ kind: 'network', path: this.#dir });
    const method = nodeNetworkMethod();
    if (method.how === 'own' && method.netem) this.impair = (node, how) => this.#impair(node, how);
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

  #makeNode(node: string, index: number): Promise<string> {
    return this.#batch(this.#new(node), [
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
    const namespace = this.#namespaces.get(node);
    if (namespace === undefined) throw this.#unknown(node);
    return namespace;
  }

  cut(links: readonly LinkCut[]): Promise<void> {
    for (const [from, to] of links) {
      this.#addressOf(from);
      this.#addressOf(to);
      if (from === to) throw new Error(`a cut of the link from ${from} to itself: expected two nodes`);
    }
    return this.#change(async () => {
      this.#links = links;
    });
  }

  cutConnections(a: string, b: string): Promise<void> {
    const [addressA, addressB] = [this.#addressOf(a), this.#addressOf(b)];
    return this.#change(async () => {
      // A connection may exist on one side only, as after a crash of the other node.
      const [ofA, ofB] = await Promise.all([this.#connectionsOf(a), this.#connectionsOf(b)]);
      const ports = [
        ...ofA.flatMap((one) =>
          one.peerAddress === addressB ? [[one.localPort, one.peerPort] as const] : [],
        ),
        ...ofB.flatMap((one) =>
          one.peerAddress === addressA ? [[one.peerPort, one.localPort] as const] : [],
        ),
      ];
      const add = (node: string, fromAddress: string, fromPort: number, toPort: number) =>
        this.#connections.set(node, [
          ...(this.#connections.get(node) ?? []),
          { fromAddress, fromPort, toPort },
        ]);
      for (const [portA, portB] of ports) {
        add(a, addressB, portB, portA);
        add(b, addressA, portA, portB);
      }
    });
  }

  healConnections(): Promise<void> {
    return this.#change(async () => {
      this.#connections = new Map();
    });
  }

  async swallowedPackets(): Promise<number> {
    await this.#changed.catch(() => {});
    if (this.#isRemoved) return 0;
    const counts = await Promise.all(
      [...this.#withRules].map(async (node) =>
        packetsIn(await this.#tool([...this.#inside(node), 'nft', ...LIST_COUNTER])),
      ),
    );
    return counts.reduce((sum, count) => sum + count, 0);
  }

  remove(): void {
    this.#isRemoved = true;
    removeNetwork(this.#dir);
    this.#registry.gone({ kind: 'network', path: this.#dir });
  }

  /** Changes what is cut, after the changes before. The rules of every node that has some start to count anew. */
  #change(update: () => Promise<void>): Promise<void> {
    const changed = this.#changed
      .catch(() => {})
      .then(async () => {
        if (this.#isRemoved) return;
        await update();
        await Promise.all(this.#nodes.map((node) => this.#applyRules(node)));
      });
    this.#changed = changed;
    return changed;
  }

  async #applyRules(node: string): Promise<void> {
    const cuts: NodeCuts = {
      addresses: this.#links.flatMap(([from, to]) => (to === node ? [this.#addressOf(from)] : [])),
      connections: this.#connections.get(node) ?? [],
    };
    const isEmpty = cuts.addresses.length + cuts.connections.length === 0;
    if (isEmpty && !this.#withRules.has(node)) return;
    this.#withRules.add(node);
    await this.#tool([...this.#inside(node), 'nft', '-f', '-'], rulesFor(cuts));
    if (isEmpty) this.#withRules.delete(node);
  }

  async #impair(node: string, how: Impairment): Promise<void> {
    this.#addressOf(node);
    if (this.#isRemoved) return;
    // An impairment replaces the one before. The first one replaces a queue of the kernel, which `delete` refuses to remove.
    const change = netemOptions(how);
    const tc = [...this.#inside(node), 'tc', 'qdisc'];
    const root = ['dev', NODE_LINK, 'root'];
    await this.#tool([...tc, 'replace', ...root, 'netem', ...change]);
    if (change.length === 0) await this.#tool([...tc, 'delete', ...root]);
  }

  async #connectionsOf(node: string) {
    return connectionsIn(
      await this.#tool([
        ...this.#inside(node),
        'sh',
        '-c',
        'cat /proc/net/tcp; cat /proc/net/tcp6 2>/dev/null || :',
      ]),
    );
  }

  #addressOf(node: string): string {
    const address = this.addresses.get(node);
    if (address === undefined) throw this.#unknown(node);
    return address;
  }

  #unknown(node: string): Error {
    return new Error(`${node}: no such node, expected one of ${this.#nodes.join(', ')}`);
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

/** Returns the lines that start a link. It gets no IPv6 address first: a later change would not take that one away. */
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
