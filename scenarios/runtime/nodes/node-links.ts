import type { LinkCut, Links } from '../../../faults/fault.js';
import {
  type Arriving,
  connectionsIn,
  LIST_COUNTER,
  type NodeCuts,
  packetsIn,
  rulesFor,
} from './cut-rules.js';
import { type Impairment, netemOptions } from './impairment.js';

/** Name of the interface of a node, as on most machines. */
export const NODE_LINK = 'eth0';

/** What the links of a network act on. */
export interface NodeLinksOptions {
  /** Addresses of the nodes by name. They may come later than the links, and before the first call. */
  addresses: ReadonlyMap<string, string>;
  /** Runs a tool in the network namespace of a node, with text on its stdin. Resolves to its stdout. */
  run(node: string, command: readonly string[], input?: string): Promise<string>;
  /** Whether the kernel can delay and drop packets. */
  netem: boolean;
}

/** Cuts and impairs the links between network namespaces, by rules and queues in the namespaces of the nodes. */
export class NodeLinks implements Links {
  readonly impair?: NonNullable<Links['impair']>;
  readonly #addresses: ReadonlyMap<string, string>;
  readonly #run: NodeLinksOptions['run'];
  #links: readonly LinkCut[] = [];
  /** Connections that are cut, by the node that receives nothing of them. */
  #connections = new Map<string, Arriving[]>();
  /** Nodes that have rules, or may have some. */
  readonly #withRules = new Set<string>();
  /** The last change of rules. The next one waits for it. */
  #changed: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  constructor({ addresses, run, netem }: NodeLinksOptions) {
    this.#addresses = addresses;
    this.#run = run;
    if (netem) this.impair = (node, how) => this.#impair(node, how);
  }

  /** Lets the calls that follow do nothing: the network is being removed. */
  close(): void {
    this.#isClosed = true;
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
    if (this.#isClosed) return 0;
    const counts = await Promise.all(
      [...this.#withRules].map(async (node) => packetsIn(await this.#run(node, ['nft', ...LIST_COUNTER]))),
    );
    return counts.reduce((sum, count) => sum + count, 0);
  }

  /** Changes what is cut, after the changes before. The rules of every node that has some start to count anew. */
  #change(update: () => Promise<void>): Promise<void> {
    const changed = this.#changed
      .catch(() => {})
      .then(async () => {
        if (this.#isClosed) return;
        await update();
        await Promise.all([...this.#addresses.keys()].map((node) => this.#applyRules(node)));
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
    await this.#run(node, ['nft', '-f', '-'], rulesFor(cuts));
    if (isEmpty) this.#withRules.delete(node);
  }

  async #impair(node: string, how: Impairment): Promise<void> {
    this.#addressOf(node);
    if (this.#isClosed) return;
    // An impairment replaces the one before. The first one replaces a queue of the kernel, which `delete` refuses to remove.
    const change = netemOptions(how);
    const root = ['dev', NODE_LINK, 'root'];
    await this.#run(node, ['tc', 'qdisc', 'replace', ...root, 'netem', ...change]);
    if (change.length === 0) await this.#run(node, ['tc', 'qdisc', 'delete', ...root]);
  }

  async #connectionsOf(node: string) {
    return connectionsIn(
      await this.#run(node, ['sh', '-c', 'cat /proc/net/tcp; cat /proc/net/tcp6 2>/dev/null || :']),
    );
  }

  #addressOf(node: string): string {
    return knownNode(this.#addresses, node);
  }
}

/** Returns what a map has for a node. @throws Error when it does not know the node. */
export function knownNode(byNode: ReadonlyMap<string, string>, node: string): string {
  const value = byNode.get(node);
  if (value !== undefined) return value;
  throw new Error(`${node}: no such node, expected one of ${[...byNode.keys()].join(', ')}`);
}
