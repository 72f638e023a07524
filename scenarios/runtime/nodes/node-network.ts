import type { Links } from '../../../faults/fault.js';

/** The network of one cluster. It exists until `remove`, and nothing outside the run reaches it but the kit. */
export interface NodeNetwork extends Links {
  /** IPv4 addresses of the nodes by name, in the order of the target file. Nodes connect to each other at these. */
  readonly addresses: ReadonlyMap<string, string>;
  /** IPv4 addresses at which the kit connects to the nodes, where they are others than `addresses`. */
  readonly kitAddresses?: ReadonlyMap<string, string>;
  /** Returns the command that precedes a command of a node, so that it runs in the network of the node. */
  enter(node: string): readonly string[];
  /**
   * Returns the network namespace of a node as /proc names it, `net:[NUMBER]`. Every process in it belongs to the node.
   * Absent where nodes are on another kernel.
   */
  namespaceOf?(node: string): string;
  /** The pods of the nodes, where nodes are groups of containers. */
  readonly pods?: NodePods;
  /** Removes the network. It can be called from an exit handler, and more than once. */
  remove(): void;
}

/** The pods of the nodes: one container per node, whose network the containers of the node's services join. */
export interface NodePods {
  /** Returns the id of the container. */
  idOf(node: string): string;
  /** Removes the pod of a node. No other container of the node may run. */
  remove(node: string): Promise<void>;
}
