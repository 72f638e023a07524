import { KitError } from '../../conformance/errors.js';
import { type Harm, isSameHarm } from '../../conformance/history/cluster-states.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import type { Target } from '../../conformance/target-file/definition.js';
import type {
  ClusterContext,
  FaultNode,
  LinkCut,
  Links,
  LossObserver,
  PowerDisk,
  Service,
} from '../../faults/fault.js';
import { LossWatch } from '../../faults/files/loss-watch.js';
import type { CommandResult } from '../runtime/runtime.js';
import type { LaunchedTarget } from './launch.js';
import { type NodeDisks, ONLY_NODE } from './node-disks.js';
import type { Ledger } from './workload/ledger.js';
import { wrapDisk } from './wrap-disk.js';

/** What a node is made from. */
export interface NodeParts {
  disks: NodeDisks;
  /** Wraps a disk, so that a power cut records what is at risk. */
  watchDisk(disk: PowerDisk): PowerDisk;
  /** Returns the ids of the messages at risk whose bytes are in a part of a file. */
  messagesIn(bytes: Buffer): Iterable<string>;
}

/** Makes a node as faults see it. Its disk is the present one: a fault may replace it. */
export function nodeForFaults(name: string, services: readonly Service[], parts: NodeParts): FaultNode {
  const { disks, watchDisk, messagesIn } = parts;
  const { dataDir, power } = disks.of(name);
  // The files of a target on another machine cannot be read from here.
  const losses = power?.killsTarget === true ? undefined : new LossWatch(dataDir, messagesIn);
  return {
    name,
    services,
    dataDir,
    get powerDisk() {
      const disk = disks.of(name).power;
      return disk && watchDisk(disk);
    },
    losses: name === ONLY_NODE ? losses : losses && withNodeName(losses, name),
  };
}

/** Puts the name of the node before each path: `b:queue/log`. */
function withNodeName(losses: LossObserver, node: string): LossObserver {
  return {
    before: () => losses.before(),
    after: (lostPages) =>
      losses.after(lostPages).map(({ file, nameAfter, ...rest }) => ({
        ...rest,
        file: `${node}:${file}`,
        nameAfter: nameAfter === null ? null : `${node}:${nameAfter}`,
      })),
  };
}

/**
 * Boots the machine of a node again: what starts on it from now on sees another boot id. Does nothing while a process of it
 * lives, because the end of a boot removes directories that its processes see their data through.
 * @returns the reason when it cannot see another boot id.
 */
export async function rebootNode(
  { nodes }: Pick<LaunchedTarget, 'nodes'>,
  name: string,
): Promise<string | undefined> {
  const node = nodes.find((one) => one.name === name);
  const isDead = node?.services.every((service) => service.pids().length === 0);
  return isDead ? node?.deployment.reboot() : undefined;
}

/** Wraps the disk of a node of a cluster: its machine boots again after a power cut, before a fault starts anything. */
export function rebootAfterCut(disk: PowerDisk, reboot: () => Promise<string | undefined>): PowerDisk {
  return wrapDisk(disk, {
    cut: async (moment, loss, random) => {
      const report = await disk.cut(moment, loss, random);
      return { ...report, detail: withOldBoot(report.detail, await reboot()) };
    },
  });
}

/** Adds to a line for people that the target sees the boot id from before the crash, and why. */
export function withOldBoot(detail: string, problem: string | undefined): string {
  // The target may trust what a real crash would destroy.
  return problem === undefined ? detail : `${detail}; the target sees the old boot id (${problem})`;
}

/** Parts of a round that the cluster uses. */
export interface RoundClusterOptions {
  target: Target;
  launched: LaunchedTarget;
  nodes: readonly FaultNode[];
  disks: NodeDisks;
  ledger: Ledger;
  recorder: Pick<Recorder, 'record'>;
  network: Links;
  /** Returns the number of the current injection. */
  injection(): number;
  /** Timeout of the install command on a new disk, and of `promote`, in milliseconds. */
  installTimeoutMs: number;
  signal: AbortSignal;
}

/** The cluster of a round, as its faults see it. */
export class RoundCluster implements ClusterContext {
  readonly nodes: readonly FaultNode[];
  readonly links: Links;
  readonly tolerates: number;
  readonly electionMs: number;
  readonly promote?: (node: string) => Promise<void>;
  readonly #options: RoundClusterOptions;
  #state: { down: readonly string[]; cut: readonly LinkCut[] } = { down: [], cut: [] };
  /** Nodes on which `promote` was called in an injection. */
  #promotion: { injection: number; nodes: string[] } | undefined;

  constructor(options: RoundClusterOptions) {
    const { cluster } = options.target.guarantee;
    if (cluster === undefined)
      throw new KitError('assertion', 'invariant broken: a target with nodes has no guarantee.cluster');
    this.#options = options;
    this.nodes = options.nodes;
    this.links = this.#watch(options.network);
    this.tolerates = cluster.tolerates;
    this.electionMs = cluster.electionSeconds * 1000;
    const { promote } = options.target;
    if (promote !== undefined) this.promote = (node) => this.#promote(node, promote);
  }

  noteState({ down, cut }: { down: readonly string[]; cut: readonly LinkCut[] }): void {
    const { recorder, injection } = this.#options;
    this.#state = { down, cut };
    const number = injection();
    if (this.#promotion?.injection !== number) this.#promotion = undefined;
    recorder.record({
      kind: 'cluster-state',
      injection: number,
      down: [...down],
      cut: cut.map(([from, to]) => [from, to]),
      ...(this.#promotion && this.#promotion.nodes.length > 0 && { promoted: [...this.#promotion.nodes] }),
    });
  }

  /**
   * Records that an injection begins. From now on nothing is demanded of what the injection before has left: a fault may stop
   * a disk or a process, and records no state.
   */
  noteBegin(): void {
    this.noteState(this.#state);
  }

  /** Records that every node is up again and no link is cut, unless this is recorded already. */
  noteWhole(): void {
    const { down, cut } = this.#state;
    if (down.length > 0 || cut.length > 0) this.noteState({ down: [], cut: [] });
  }

  /**
   * Replaces the cuts. A checker must know when links are surely cut: the state is recorded again when they are, and before
   * they are healed.
   */
  async #cut(links: readonly LinkCut[]): Promise<void> {
    const next = { down: this.#state.down, cut: links };
    if (!isSameHarm(asHarm(this.#state), asHarm(next))) this.noteState(next);
    await this.#options.network.cut(links);
    this.noteState(next);
  }

  async start(node: string): Promise<void> {
    const { services = [] } = this.nodes.find(({ name }) => name === node) ?? {};
    for (const service of services) await service.start();
  }

  async waitForConfirmsBy(nodes: readonly string[], count: number, timeoutMs: number): Promise<number> {
    const { ledger, signal } = this.#options;
    const total = () => nodes.reduce((sum, node) => sum + ledger.confirmedBy(node), 0);
    const before = total();
    await ledger.waitUntil(() => total() - before >= count, timeoutMs, signal);
    return total() - before;
  }

  async replaceDisk(node: string, { install }: { install: boolean }): Promise<void> {
    const { disks, launched, target, installTimeoutMs } = this.#options;
    await disks.replace(node);
    // A node whose disk was replaced is another machine.
    await rebootNode(launched, node);
    await launched.install(install ? target.install : undefined, installTimeoutMs, node);
  }

  async #promote(node: string, command: readonly string[]): Promise<void> {
    const { launched, installTimeoutMs, injection } = this.#options;
    const one = launched.nodes.find(({ name }) => name === node);
    if (one === undefined) throw new Error(`no node is named ${node}`);
    const number = injection();
    const known = this.#promotion?.injection === number ? this.#promotion.nodes : [];
    const promotion = { injection: number, nodes: [...known] };
    this.#promotion = promotion;
    // The node may confirm before its command returns.
    promotion.nodes.push(node);
    this.noteState(this.#state);
    try {
      const result = await one.deployment.runCommand(
        `promote@${node}`,
        one.expand(command),
        installTimeoutMs,
      );
      requireSuccess(node, result);
    } catch (error) {
      promotion.nodes.pop();
      throw error;
    } finally {
      this.noteState(this.#state);
    }
  }

  #watch(network: Links): Links {
    return {
      cut: (links) => this.#cut(links),
      cutConnections: (a, b) => network.cutConnections(a, b),
      healConnections: () => network.healConnections(),
      swallowedPackets: () => network.swallowedPackets(),
      ...(network.impair && { impair: network.impair.bind(network) }),
    };
  }
}

/** @throws Error when the command did not promote the node: it may refuse, or the node may not be ready for it. */
function requireSuccess(node: string, { code, timedOut, stdout, stderr }: CommandResult): void {
  if (code === 0) return;
  const how = timedOut ? 'took too long' : `ended with code ${code}`;
  const said = `${stderr}\n${stdout}`.trim().split('\n', 1)[0] ?? '';
  throw new Error(`promote on ${node} ${how}${said === '' ? '' : `: ${said}`}`);
}

function asHarm({ down, cut }: { down: readonly string[]; cut: readonly LinkCut[] }): Harm {
  return { down: [...down], cut: cut.map(([from, to]) => [from, to]) };
}
