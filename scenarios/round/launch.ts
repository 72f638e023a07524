import { existsSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import { type Address, localAddress } from '../../conformance/protocols/address.js';
import type { Protocol, Receipts, Receiver, ReceiverOptions } from '../../conformance/protocols/protocol.js';
import type { Target } from '../../conformance/target-file/definition.js';
import {
  expandCommand,
  expandVariables,
  type PlaceholderValues,
  portNames,
  submitPorts,
} from '../../conformance/target-file/placeholders.js';
import type { Service } from '../../faults/fault.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { runTool } from '../../faults/power/mounts.js';
import { atExit } from '../host/at-exit.js';
import { closedDirectory } from '../host/directories.js';
import { processEntry } from '../host/processes.js';
import type { Registry } from '../host/registry.js';
import { joinDeployments, type NodeDeployment } from '../runtime/nodes/join-deployments.js';
import type { NodeNetwork } from '../runtime/nodes/node-network.js';
import type { Deployment, PreparedRuntime } from '../runtime/runtime.js';
import { type LaunchPlace, makePlace } from './launch-place.js';
import { ONLY_NODE } from './node-disks.js';
import { TargetSupervisor } from './target-supervisor.js';

/** Description of a target that is launched on a data directory. */
export interface LaunchPlan {
  target: Target;
  protocol: Protocol;
  runtime: PreparedRuntime;
  registry: Registry;
  /** Id of the run whose messages are received. Default: the id of `registry`. */
  messagesOf?: string;
  /** Recorder that gets the starts and exits of services. */
  recorder: Pick<Recorder, 'record'>;
  receipts: Receipts;
  /** Returns the receiver's answer to a delivery. Default: accept. */
  replyFor?: NonNullable<ReceiverOptions['replyFor']>;
  /** Returns true if the run has submitted a message with this id. Default: any id may have been submitted. */
  wasSubmitted?: NonNullable<ReceiverOptions['wasSubmitted']>;
  /** `{data}` of a target without `nodes`. */
  dataDir: string;
  /** `{data}` of each node of a target with `nodes`. */
  nodeDataDirs?: ReadonlyMap<string, string>;
  /** Directory in which the directories `logs` and `scratch` are made. */
  dir: string;
  /** Directory whose content `{scratch}` gets: that of the run whose crash states are explored. Default: none. */
  scratchFrom?: string;
  /** The same for each node of a target with `nodes`. */
  nodeScratchFrom?: ReadonlyMap<string, string>;
  /** Network and ports, which stay when this target is destroyed. Default: new ones, which go with it. */
  place?: LaunchPlace;
  /** Nodes that have an address, and nothing runs there: their machines are away. Default: none. */
  absentNodes?: readonly string[];
  signal: AbortSignal;
  /**
   * Name that distinguishes the processes of this target from those of other targets that the same run starts
   * at the same time.
   */
  worker?: string;
  /** Name of the directory `logs` in the text for people. Default: its path. */
  logDirLabel?: string;
  /** Called with one line when a service exits before the target was ready for the first time. */
  onFailedStart?(line: string): void;
  /** Called just before a service that still lives is killed. */
  onCrash?(): void;
  /** Called with the process id of every service that was started. */
  onProcess?(pid: number): void;
  /** Called with the command line of a process that has escaped from its service; see `DeploymentPlan`. */
  onEscaped?(command: string): void;
}

/** A target on a data directory with a receiver beside it. Its services are not started yet. */
export interface LaunchedTarget {
  deployment: Deployment;
  supervisor: TargetSupervisor;
  receiver: Receiver;
  /** The addresses to which messages are submitted, those of the first node first. */
  addresses: readonly Address[];
  /** The nodes in the order of the target file. A target without `nodes` has one, named ''. */
  nodes: readonly LaunchedNode[];
  /** The network between the nodes; undefined for a target without `nodes`. */
  network: NodeNetwork | undefined;
  /** Fills in the placeholders of a command that belongs to no service, on the first node. */
  expand(command: readonly string[]): string[];
  /**
   * Gives the directories to the user of the target, and runs an install command on each node, if the target has one. Must
   * be called before the first start on an empty directory.
   * @param node only this node. Default: every node.
   * @throws KitError bad-target when it cannot be run, target-unavailable with the end of its output when it
   * fails.
   */
  install(command: readonly string[] | undefined, timeoutMs: number, node?: string): Promise<void>;
  /** Kills the processes of the target and closes the receiver. May be called twice. */
  destroy(): Promise<void>;
}

/** A node of a launched target. */
export interface LaunchedNode {
  name: string;
  /** Services of this node, as the supervisor watches them. */
  services: readonly Service[];
  deployment: Deployment;
  /** Fills in the placeholders of a command that belongs to no service, on this node. */
  expand(command: readonly string[]): string[];
}

/** Timeout of an install command. */
export const INSTALL_TIMEOUT_MS = 60_000;

/** Returns `{scratch}` of a node of a target that is launched in `dir`. It is apart from the kit's own scratch files. */
export function scratchDirOf(dir: string, node = ONLY_NODE): string {
  return join(dir, 'scratch', node, 'target');
}

/** Replaces the content of `{scratch}` with that of another one, owners included. */
export function copyScratch(from: string, to: string): void {
  if (from === to || !existsSync(from)) return;
  removeTree(to);
  mkdirSync(dirname(to), { recursive: true });
  runTool('cp', ['-a', from, to]);
}

/** Puts a target onto a data directory: ports, receiver, services. This is the only place that does so. */
export async function launch(plan: LaunchPlan): Promise<LaunchedTarget> {
  const { target, protocol, runtime, registry, dir } = plan;
  const place = plan.place ?? (await makePlace(target, runtime, registry));
  const { network, ports: byName } = place;
  // A place that was given belongs to the caller.
  const endPlace = async () => {
    if (plan.place === undefined) await network?.end?.();
  };
  const removePlace = () => {
    if (plan.place === undefined) place.remove();
  };
  let receiver: Receiver | undefined;
  let supervisor: TargetSupervisor | undefined;
  const deployed: NodeDeployment[] = [];
  let addresses: Address[];
  const expand = (node: string) => (command: readonly string[]) =>
    expandCommand(command, placeholderValues(plan, { node, network, byName, sink: receiver?.sink ?? '' }));
  try {
    addresses = addressesOf(target, byName, network).filter(({ node = ONLY_NODE }) => isPresent(plan, node));
    receiver = await protocol.receive(addresses, receiverOptions(plan));
    const { sink } = receiver;
    mkdirSync(join(dir, 'logs'), { recursive: true });
    for (const node of (target.nodes ?? [ONLY_NODE]).filter((name) => isPresent(plan, name))) {
      const scratchDir = scratchDirOf(dir, node);
      mkdirSync(scratchDir, { recursive: true });
      const scratchFrom = plan.nodeScratchFrom?.get(node) ?? plan.scratchFrom;
      if (scratchFrom !== undefined) copyScratch(scratchFrom, scratchDir);
      const values = (service: string) => placeholderValues(plan, { node, network, byName, sink, service });
      const deployment = runtime.deploy({
        // A process that carries this run id and service name is killed together with the service.
        runId: [registry.runId, plan.worker, node || undefined]
          .filter((part) => part !== undefined)
          .join('-'),
        services: servicesOn(target, node).map(([name, { command, env = {}, user }]) => ({
          name: serviceNameOn(name, node),
          command: expandCommand(command, values(name)),
          env: expandVariables(env, values(name)),
          user,
        })),
        scratchDir,
        workingDir: dirname(scratchDir),
        logDir: join(dir, 'logs'),
        dataDir: dataDirOf(plan, node),
        node: network && { name: node, network },
        ports: [...byName.values()],
        sink,
        registry,
        onStarted: (service, incarnation, pid) => {
          // `clean` also finds a process by its environment. This entry is for one that has changed its
          // environment.
          registry.made({ kind: 'process', pid, startTicks: processEntry(pid)?.startTicks ?? 0 });
          plan.onProcess?.(pid);
          supervisor?.onStarted(service, incarnation);
        },
        onExited: (...exit) => supervisor?.onExited(...exit),
        onEscaped: (command) => plan.onEscaped?.(command),
      });
      deployed.push({ node, deployment });
    }
  } catch (error) {
    // Remove all of it, also when a part cannot be removed: the first error is the one that says why.
    await Promise.allSettled([receiver?.close(), ...deployed.map(({ deployment }) => deployment.destroy())]);
    await endPlace().catch(() => {});
    removePlace();
    throw error;
  }
  const received = receiver;
  const deployment = joinDeployments(deployed);
  const forget = atExit(() => {
    deployment.destroyNow();
    removePlace();
  });
  const created = new TargetSupervisor(deployment, {
    protocol,
    addresses,
    nodes: target.nodes?.length,
    recorder: plan.recorder,
    signal: plan.signal,
    logDir: join(dir, 'logs'),
    logDirLabel: plan.logDirLabel ?? join(dir, 'logs'),
    onFailedStart: (line) => plan.onFailedStart?.(line),
    onCrash: () => plan.onCrash?.(),
  });
  supervisor = created;
  const nodes = deployed.map(({ node, deployment: own }): LaunchedNode => {
    const names = new Set(own.services.map(({ name }) => name));
    const services = created.services.filter(({ name }) => names.has(name));
    return { name: node, services, deployment: own, expand: expand(node) };
  });
  return {
    deployment,
    supervisor: created,
    receiver: received,
    addresses,
    nodes,
    network,
    expand: expand(nodes[0]?.name ?? ONLY_NODE),
    async install(command, timeoutMs, only) {
      const chosen = nodes.filter(({ name }) => only === undefined || name === only);
      await Promise.all(
        chosen.map(async ({ name, deployment: own, expand: expandHere }) => {
          await own.handOver?.();
          if (command === undefined) return;
          const log = join(dir, 'logs', `${serviceNameOn('install', name)}.log`);
          await runInstall(own, name, expandHere(command), timeoutMs, (output) => {
            return `${hintOfClosedDirectory(dataDirOf(plan, name), output)}; its log is ${log}`;
          });
        }),
      );
    },
    async destroy() {
      created.expectExits();
      try {
        await deployment.destroy();
        await endPlace();
      } finally {
        // Close the receiver even when the engine has gone and nothing can be removed: an open receiver keeps
        // the kit alive.
        try {
          await received.close();
        } finally {
          removePlace();
          forget();
        }
      }
    },
  };
}

function isPresent({ absentNodes = [] }: LaunchPlan, node: string): boolean {
  return !absentNodes.includes(node);
}

/** Returns the name of a service or command as it is recorded: in a cluster with the name of its node. */
function serviceNameOn(name: string, node: string): string {
  return node === ONLY_NODE ? name : `${name}@${node}`;
}

/** Returns the services that run on a node. */
function servicesOn({ services }: Target, node: string) {
  return Object.entries(services).filter(([, { nodes }]) => nodes === undefined || nodes.includes(node));
}

function dataDirOf({ dataDir, nodeDataDirs }: LaunchPlan, node: string): string {
  return nodeDataDirs?.get(node) ?? dataDir;
}

/** Returns the values of the placeholders of a command on a node; without a service, of one that belongs to none. */
function placeholderValues(
  plan: LaunchPlan,
  on: {
    node: string;
    network: NodeNetwork | undefined;
    byName: ReadonlyMap<string, number>;
    sink: string;
    service?: string;
  },
): PlaceholderValues {
  const { runtime, dir } = plan;
  return {
    ...runtime.pathsFor(on.service),
    data: dataDirOf(plan, on.node),
    scratch: scratchDirOf(dir, on.node),
    sink: runtime.sinkFor?.(on.sink) ?? on.sink,
    ports: on.byName,
    cluster: on.network && { name: on.node, addresses: on.network.addresses },
  };
}

function receiverOptions({
  target,
  registry,
  messagesOf,
  receipts,
  replyFor: reception,
  wasSubmitted,
}: LaunchPlan): ReceiverOptions {
  const { inDeliveryPerSession: perSession, headers, order } = target.guarantee;
  return {
    headers,
    ...(wasSubmitted === undefined ? {} : { wasSubmitted }),
    run: messagesOf ?? registry.runId,
    receipts,
    inOrder: order !== undefined,
    ...(reception === undefined ? {} : { replyFor: reception }),
    ...(perSession === undefined ? {} : { inDeliveryPerSession: perSession }),
  };
}

/** Returns the addresses to which messages are submitted: on each node, the ports that a service of the node uses. */
function addressesOf(
  target: Target,
  byName: ReadonlyMap<string, number>,
  network: NodeNetwork | undefined,
): Address[] {
  const submit = submitPorts(target);
  if (network === undefined) return submit.map((name) => localAddress(byName.get(name) ?? 0));
  return [...(network.kitAddresses ?? network.addresses)].flatMap(([node, host]) => {
    const own = portNames({ ...target, services: Object.fromEntries(servicesOn(target, node)) });
    return submit
      .filter((name) => own.includes(name))
      .map((name) => ({ host, port: byName.get(name) ?? 0, node }));
  });
}

async function runInstall(
  deployment: Deployment,
  node: string,
  command: string[],
  timeoutMs: number,
  hintFor: (output: string) => string,
): Promise<void> {
  const result = await deployment
    .runCommand(serviceNameOn('install', node), command, timeoutMs)
    .catch((error: unknown) => {
      // A KitError means that the runtime is gone, which is not the fault of the command.
      if (error instanceof KitError) throw error;
      throw new KitError('bad-target', `install: cannot be run: ${messageOf(error)}`, { cause: error });
    });
  if (result.code === 0) return;
  const how = result.timedOut
    ? `took longer than ${timeoutMs} ms`
    : `ended with ${result.signal ?? `code ${result.code}`}`;
  // The reason stands in stderr. Lines of stdout would push it out.
  const output = (result.stderr.trim() || result.stdout.trim()).split('\n').slice(-3).join(' | ');
  throw new KitError(
    'target-unavailable',
    `the target's install command${node === ONLY_NODE ? '' : ` on node ${node}`} ${how}: ${output}${hintFor(output)}`,
  );
}

/**
 * Returns a hint for a start that failed for lack of a permission: a directory above `{data}`, outside the kit's own
 * ones, that keeps a service out once it has given up root. Returns '' when there is none.
 * @param output what the failed program has printed.
 */
export function hintOfClosedDirectory(dataDir: string, output: string): string {
  if (process.getuid?.() !== 0 || !/permission|EACCES|EPERM/i.test(output)) return '';
  const closed = closedDirectory(dirname(dataDir));
  return closed === undefined
    ? ''
    : `; other users may not enter ${closed}: a service that gives up root cannot reach {data} below it (PLUGPULL_STATE and --out name another place)`;
}
