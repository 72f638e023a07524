import type { Target } from '../../conformance/target-file/definition.js';
import type { Availability, Fault, Service } from '../../faults/fault.js';
import type { Filesystem } from '../../faults/power/filesystem.js';
import type { Registry } from '../host/registry.js';
import type { Disk, DiskKind } from './disk.js';
import type { NodeNetwork } from './nodes/node-network.js';

export { RUN_VARIABLE } from '../host/dead-runs.js';

/** Environment variable with the name of the target's service to which a process belongs. */
export const SERVICE_VARIABLE = 'PLUGPULL_SERVICE';

/** Description of one service of a target, with its placeholders filled in. */
export interface PlannedService {
  name: string;
  command: readonly string[];
  /** Environment variables of the service, in addition to those of the runtime. */
  env?: Readonly<Record<string, string>>;
  /**
   * Name or number of the user as which the service runs. Default: the kit's user. Commands that belong to no
   * service run as the user of the first service, and `{data}` and `{scratch}` belong to that user.
   */
  user?: string | undefined;
}

/** Description of a target that a runtime deploys. */
export interface DeploymentPlan {
  runId: string;
  services: readonly PlannedService[];
  /** Working directory of every process. */
  workingDir: string;
  /** Directory of the log files: one per service and command, with stdout and stderr together. */
  logDir: string;
  /** The directory under test (`{data}`). A service can write only to this directory and to `workingDir`. */
  dataDir: string;
  /** Directory inside `workingDir` for files that survive every crash (`{scratch}`). */
  scratchDir: string;
  /**
   * The node on which the services run; undefined for a target without `nodes`. A cluster is deployed node by node, each with
   * its own directories.
   */
  node?: { name: string; network: NodeNetwork } | undefined;
  /** Ports on which services listen. */
  ports: readonly number[];
  /** Address of the kit's receiver (host:port on this machine); '' without a receiver. */
  sink: string;
  /** Registry in which every resource is registered before it is made. */
  registry: Registry;
  onStarted(service: string, incarnation: number, pid: number): void;
  onExited(service: string, incarnation: number, code: number | null, signal: string | null): void;
  /**
   * Called with the command line of a process that has escaped from its service and was killed at the end: a daemon
   * in a session of its own, without the environment of the service. Called once for each command line.
   */
  onEscaped?(command: string): void;
}

/** Exit of one command of the target. */
export interface CommandResult {
  code: number | null;
  signal: string | null;
  /** True when the command was killed because it took too long. */
  timedOut: boolean;
  stdout: string;
  stderr: string;
}

/** A target on its runtime. After `destroy` nothing of it is left. */
export interface Deployment {
  readonly services: readonly Service[];
  /** Runs a command of the target beside its services (install, verify) and waits for it. */
  runCommand(name: string, command: readonly string[], timeoutMs: number): Promise<CommandResult>;
  /**
   * Gives `{data}` and `{scratch}` to the user of the first service. Must be called once, before the install
   * command.
   */
  handOver?(): Promise<void>;
  /**
   * Lets everything that starts from now on see a machine that was booted again: another boot id, and an empty
   * /tmp, /run and /dev/shm. No process of the target may live.
   * @returns the reason when the target cannot see another boot id; otherwise undefined.
   */
  reboot(): Promise<string | undefined>;
  /** Sends SIGTERM to every service, kills what still runs after `graceMs`, and destroys the deployment. */
  stop(graceMs: number): Promise<void>;
  /** Kills every process of the target and removes what the deployment has made. */
  destroy(): Promise<void>;
  /** Kills the processes without waiting, for the second Ctrl-C. */
  destroyNow(): void;
}

/** Values of the placeholders in a command: paths in the runtime's own file system. */
export interface RuntimePaths {
  /** Folder of the target file. */
  dir: string;
  /** Path of the node binary. */
  node: string;
}

/**
 * A platform for targets: plain processes, containers on a local container engine, or containers in a virtual
 * machine.
 */
export interface Runtime {
  readonly name: 'process' | 'docker' | 'vm';
  available(): Promise<Availability>;
  /**
   * Provides everything that the target needs (images). Must be called once, before the first deployment.
   * @throws KitError target-unavailable when something cannot be provided.
   */
  prepare(target: Target, log: (line: string) => void): Promise<PreparedRuntime>;
}

/** A runtime that has everything that one target needs. */
export interface PreparedRuntime {
  readonly name: Runtime['name'];
  /** Returns the paths for the command of a service; without a service, for install and verify. */
  pathsFor(service?: string): RuntimePaths;
  /** Returns the image of a service; undefined where services do not run in images. */
  imageOf?(service: string): string;
  /** Images of the target's services, by their names on the container engine of this machine. */
  readonly images?: readonly string[];
  /** Reports whether a fault that this machine supports can be injected into a target on this runtime. */
  supports(fault: Fault): Availability;
  /** Names of faults that the runtime makes possible even where this machine does not support them. */
  readonly enabledFaults?: ReadonlySet<string>;
  /**
   * Translates the address of the kit's receiver (host:port) into the one that the target must call. Default:
   * unchanged.
   */
  sinkFor?(sink: string): string;
  /**
   * Timeout of starts and commands, in milliseconds, where processors are emulated in software; otherwise
   * undefined. Durations show nothing about the target there, so its claims about time are not measured.
   */
  readonly slowStartMs?: number | undefined;
  /**
   * Makes the disk of a round, or of one of its nodes, where it is not a disk of this machine.
   * @param dir directory of the round, or of the node in it.
   */
  makeDisk?(
    dir: string,
    kind: DiskKind,
    filesystem: Filesystem,
    registry: Registry,
    node?: string,
  ): Promise<Disk>;
  /**
   * Makes the network of a cluster: an address for each node, and links that can be cut. Absent where the runtime cannot run
   * several nodes.
   * @param firstAddress address of the first node in an earlier network of the same nodes. The nodes get their addresses of
   *   that network again, if no other network has them now. Default: any.
   * @throws KitError target-unavailable with the reason when it cannot be made.
   */
  makeNetwork?(nodes: readonly string[], registry: Registry, firstAddress?: string): Promise<NodeNetwork>;
  deploy(plan: DeploymentPlan): Deployment;
  /** Releases what `prepare` has taken; the runtime cannot be used afterwards. */
  close?(): Promise<void>;
}
