import type { Target } from '../../conformance/target-file/definition.js';
import type { Availability, Fault, Service } from '../../faults/fault.js';
import type { Filesystem } from '../../faults/power/filesystem.js';
import type { Registry } from '../host/registry.js';
import type { Disk, DiskKind } from './disk.js';

/** The environment variable by which every process of a run is known, wherever it forks to. */
export const RUN_VARIABLE = 'PLUGPULL_RUN';
/** Which service of the target a process belongs to. */
export const SERVICE_VARIABLE = 'PLUGPULL_SERVICE';

export interface DeploymentPlan {
  runId: string;
  services: readonly { name: string; command: readonly string[] }[];
  /** Working directory of every process. */
  workingDir: string;
  /** One log file per service and command is written here, stdout and stderr in one. */
  logDir: string;
  /** The directory that faults are done to; with `workingDir` all that a service can write to. */
  dataDir: string;
  /** Ports on which services listen. */
  ports: readonly number[];
  /** The kit's receiver (host:port on this machine); '' when there is none. */
  sink: string;
  /** What is made is registered there before. */
  registry: Registry;
  onStarted(service: string, incarnation: number, pid: number): void;
  onExited(service: string, incarnation: number, code: number | null, signal: string | null): void;
}

/** How one command of the target ended. */
export interface CommandResult {
  code: number | null;
  signal: string | null;
  /** True when it was killed because it took too long. */
  timedOut: boolean;
  stdout: string;
  stderr: string;
}

/** A target, put where it runs. Everything in it is gone after `destroy`. */
export interface Deployment {
  readonly services: readonly Service[];
  /** Runs a command of the target beside its services (install, verify) and waits for it. */
  runCommand(name: string, command: readonly string[], timeoutMs: number): Promise<CommandResult>;
  /** Asks every service to end (SIGTERM), kills what is still there after `graceMs`. */
  stop(graceMs: number): Promise<void>;
  destroy(): Promise<void>;
  /** The same without waiting, for the second Ctrl-C. */
  destroyNow(): void;
}

/** Where a command finds things, in the runtime's own file system: values of placeholders. */
export interface RuntimePaths {
  /** Folder of the target file. */
  dir: string;
  /** The node binary. */
  node: string;
}

/** Where targets run: plain processes, containers on a local engine, containers in a virtual machine. */
export interface Runtime {
  readonly name: 'process' | 'docker' | 'vm';
  available(): Promise<Availability>;
  /**
   * Gets everything there that the target needs (images); to be done once, before its first deployment.
   * @throws KitError target-unavailable when that is not possible.
   */
  prepare(target: Target, log: (line: string) => void): Promise<PreparedRuntime>;
}

/** A runtime that has everything that one target needs. */
export interface PreparedRuntime {
  readonly name: Runtime['name'];
  /** Where a service's command finds things; without a service: install and verify. */
  pathsFor(service?: string): RuntimePaths;
  /** The images of its services, as the engine of this machine names them. */
  readonly images?: readonly string[];
  /** Whether a fault, which this machine can do, can be done to what runs there. */
  supports(fault: Fault): Availability;
  /** Names of faults that it makes possible, whatever this machine has. */
  readonly enabledFaults?: ReadonlySet<string>;
  /** The kit's receiver (host:port) as the target has to call it; default: as it is. */
  sinkFor?(sink: string): string;
  /**
   * Where time says nothing about the target, because its processors are made in software: how long its starts and
   * commands may take all the same. What it claims about time is not measured then.
   */
  readonly slowStartMs?: number | undefined;
  /** The disk of a round, where it is not one of this machine; `dir` is the round's directory. */
  makeDisk?(dir: string, kind: DiskKind, filesystem: Filesystem, registry: Registry): Promise<Disk>;
  deploy(plan: DeploymentPlan): Deployment;
  /** Gives back what it has taken; nothing of it can be used afterwards. */
  close?(): Promise<void>;
}
