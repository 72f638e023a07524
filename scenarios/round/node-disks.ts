import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Filesystem } from '../../faults/power/filesystem.js';
import type { Registry } from '../host/registry.js';
import type { Disk, DiskKind } from '../runtime/disk.js';
import { makeDisk } from '../runtime/disks/local-disk.js';
import type { PowerBackendName } from '../runtime/power-backends.js';
import type { PreparedRuntime } from '../runtime/runtime.js';

/** What the disks of a round are made from. */
export interface NodeDisksPlan {
  /** Directory of the round. */
  dir: string;
  /** Names of the nodes; undefined for a target without `nodes`. */
  nodes: readonly string[] | undefined;
  kind: DiskKind;
  power: PowerBackendName;
  filesystem: Filesystem;
  registry: Registry;
  runtime: Pick<PreparedRuntime, 'makeDisk'>;
}

/** Name of the only node of a target without `nodes`. */
export const ONLY_NODE = '';

/** The disks of a round: one for each node. A target without `nodes` has one. */
export class NodeDisks {
  readonly #plan: NodeDisksPlan;
  readonly #disks = new Map<string, Disk>();
  #onLost: (why: string) => void = () => {};

  private constructor(plan: NodeDisksPlan) {
    this.#plan = plan;
  }

  /**
   * Makes an empty disk for each node.
   * @throws KitError kit-failed when one cannot be made. Then none is left.
   */
  static async make(plan: NodeDisksPlan): Promise<NodeDisks> {
    const disks = new NodeDisks(plan);
    // Wait for all, also when one fails: a disk that is still being made could not be removed.
    const made = await Promise.allSettled((plan.nodes ?? [ONLY_NODE]).map((node) => disks.#make(node)));
    const failed = made.find((result) => result.status === 'rejected');
    if (failed === undefined) return disks;
    disks.remove();
    throw failed.reason;
  }

  /** Called once with the reason when the disk of a node no longer works; see `PowerDisk.onLost`. */
  set onLost(onLost: (why: string) => void) {
    this.#onLost = onLost;
  }

  /** Returns the present disk of a node. */
  of(node: string): Disk {
    const disk = this.#disks.get(node);
    if (disk === undefined) throw new Error(`the node ${node} has no disk`);
    return disk;
  }

  /** Puts a new, empty disk in the place of a node's disk. No process may use the old one. */
  async replace(node: string): Promise<void> {
    this.of(node).remove();
    this.#disks.delete(node);
    await this.#make(node);
  }

  /**
   * Removes all disks with their content. It can be called from an exit handler, and more than once.
   * @throws the first error of a disk that cannot be removed, when all others are.
   */
  remove(): void {
    const errors: unknown[] = [];
    for (const disk of this.#disks.values()) {
      try {
        disk.remove();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }

  /** Returns all disks as one. What is saved has a directory for each node. */
  joined(): Disk {
    const { nodes, dir } = this.#plan;
    if (nodes === undefined) return this.of(ONLY_NODE);
    return {
      dataDir: join(dir, 'nodes'),
      power: undefined,
      remove: () => this.remove(),
      saveTo: async (to) => {
        mkdirSync(to, { recursive: true });
        for (const [node, disk] of this.#disks) await disk.saveTo(join(to, node));
      },
    };
  }

  async #make(node: string): Promise<void> {
    const { dir: roundDir, nodes, kind, power, filesystem, registry, runtime } = this.#plan;
    const dir = nodes === undefined ? roundDir : join(roundDir, 'nodes', node);
    mkdirSync(dir, { recursive: true });
    const disk = runtime.makeDisk
      ? await runtime.makeDisk(dir, kind, filesystem, registry, nodes && node)
      : await makeDisk(dir, kind, power, filesystem, registry);
    this.#disks.set(node, disk);
    if (disk.power !== undefined)
      disk.power.onLost = (why) => this.#onLost(nodes === undefined ? why : `node ${node}: ${why}`);
  }
}
