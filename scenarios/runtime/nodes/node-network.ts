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
  /**
   * Returns the id of the pod of a node, where nodes are groups of containers: the container whose network the containers of the
   * node's services join.
   */
  podOf?(node: string): string;
  /**
   * Removes what takes time to remove, such as containers. Must be called when the deployments of all nodes are destroyed, before
   * `remove`. Absent where `remove` removes everything at once.
   */
  end?(): Promise<void>;
  /** Removes the network. It can be called from an exit handler, and more than once. Without `end` before, it does not wait for the rest. */
  remove(): void;
}
