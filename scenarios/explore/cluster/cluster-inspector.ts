import { join } from 'node:path';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import type { Recording } from '../../../faults/crash-states/materialise.js';
import { StateDisk } from '../../../faults/crash-states/state-disk.js';
import type { Filesystem } from '../../../faults/power/filesystem.js';
import type { MountLimits } from '../../../faults/power/mount-options.js';
import { NOTHING_TORN } from '../../../faults/write-log/state.js';
import type { Registry } from '../../host/registry.js';
import type { LaunchPlace } from '../../round/launch-place.js';
import { DATA_DIR } from '../../runtime/disks/local-disk.js';
import type { PreparedRuntime } from '../../runtime/runtime.js';
import { type Inspection, tryMount } from '../inspectors/inspection.js';
import type { TimedOut } from '../inspectors/mount-inspector.js';
import type { StateWorkspace } from '../states/workspace.js';
import { consumeUntil } from '../strategies/run-on-target.js';
import type { ClusterState, NodeState } from './address.js';
import { restoreFiles } from './live-copies.js';

/** The recorded disk of a node, open for making states of it. */
export interface OpenNode {
  name: string;
  recording: Recording;
  /** Path of an image of the recorded disk on which the first `baseAt` writes and flushes of the log are done. */
  base: string;
  baseAt: number;
  /** Path of `{scratch}` of the recorded run. */
  scratch: string;
}

/** The options of a `ClusterInspector`. */
export interface ClusterInspectorOptions {
  target: Target;
  runtime: PreparedRuntime;
  registry: Registry;
  nodes: readonly OpenNode[];
  workspace: StateWorkspace;
  /** Network and ports of the recorded run: a target may have written its addresses to its disk. */
  place: LaunchPlace;
  filesystem: Filesystem;
  limits?: MountLimits;
  /** Id of the run whose messages the target holds. */
  run: string;
  /** Ids of the messages, in the order of their bits. */
  ids: readonly string[];
  /** History of the run, with the digest of each message. */
  events: readonly HistoryEvent[];
  /** Returns the path of the copy of a node's files at an instant. */
  copyOf(node: string, instant: number): string;
  /** Directory for the logs of the target. */
  dir: string;
  signal: AbortSignal;
  progress(line: string): void;
}

/** Makes the disks of states of a cluster one after the other, and starts the cluster on each. */
export class ClusterInspector {
  readonly #options: ClusterInspectorOptions;
  readonly #disks: { node: OpenNode; disk: StateDisk; dataDir: string }[] = [];
  #nudgeFailed = false;

  constructor(options: ClusterInspectorOptions) {
    const { nodes, workspace, filesystem, limits } = options;
    this.#options = options;
    for (const node of nodes) {
      const { recording, base, baseAt } = node;
      const slot = workspace.makeSlot(`node-${node.name}`, base);
      const disk = new StateDisk({
        ...{ recording, base, baseAt, filesystem, ...slot },
        ...(limits === undefined ? {} : { limits }),
      });
      this.#disks.push({ node, disk, dataDir: join(slot.mountPoint, DATA_DIR) });
    }
  }

  /**
   * Inspects a state.
   * @param expectedIds messages that must come. The consumer waits longer while one of them is missing.
   * @param endMs end of the wait for messages, in ms of `performance.now()`.
   */
  async inspect(
    state: ClusterState,
    expectedIds: readonly string[],
    endMs: number,
  ): Promise<Inspection | TimedOut> {
    const { target, runtime, registry, run, ids, events, signal, place, nodes, dir } = this.#options;
    const present = this.#disks.filter(({ node }) => node.name !== state.away);
    try {
      for (const one of present) {
        const refused = await this.#mount(one, state.nodes.get(one.node.name) ?? 'live', state.instant);
        if (refused !== undefined) return refused;
      }
      const cluster = {
        place,
        nodeDataDirs: new Map(present.map(({ node, dataDir }) => [node.name, dataDir])),
        nodeScratchFrom: new Map(nodes.map(({ name, scratch }) => [name, scratch])),
        absentNodes: state.away === undefined ? [] : [state.away],
        ...(state.away === undefined ? {} : { promoted: present[0]?.node.name }),
      };
      const consumed = { target, runtime, registry, run, scratch: '', ids, events, signal, cluster };
      const onNudgeFailed = (line: string) => {
        if (!this.#nudgeFailed) this.#options.progress(line);
        this.#nudgeFailed = true;
      };
      return await consumeUntil(
        endMs,
        { ...consumed, onNudgeFailed },
        '',
        expectedIds,
        join(dir, 'inspection'),
      );
    } finally {
      for (const { disk } of this.#disks) disk.unmount();
    }
  }

  async #mount(
    { node, disk, dataDir }: { node: OpenNode; disk: StateDisk; dataDir: string },
    state: NodeState,
    instant: number,
  ): Promise<Inspection | undefined> {
    if (state !== 'live') return tryMount(disk, state);
    // Any disk will do: its content is replaced by what the processes of this node saw.
    const { model } = node.recording;
    const anyState = { prefix: node.baseAt, kept: model.optional(node.baseAt), torn: NOTHING_TORN };
    const refused = tryMount(disk, anyState);
    if (refused === undefined) await restoreFiles(this.#options.copyOf(node.name, instant), dataDir);
    return refused;
  }

  close(): void {
    for (const { disk } of this.#disks) disk.close();
  }
}
