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
import { removeTree } from '../../faults/files/remove-tree.js';
import { runTool } from '../../faults/power/mounts.js';
import { atExit } from '../host/at-exit.js';
import { closedDirectory } from '../host/directories.js';
import { releasePort, reservePort } from '../host/ports.js';
import { processEntry } from '../host/processes.js';
import type { Registry } from '../host/registry.js';
import type { Deployment, PreparedRuntime } from '../runtime/runtime.js';
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
  dataDir: string;
  /** Directory in which the directories `logs` and `scratch` are made. */
  dir: string;
  /** Directory whose content `{scratch}` gets: that of the run whose crash states are explored. Default: none. */
  scratchFrom?: string;
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
  /** The addresses to which messages are submitted. */
  addresses: readonly Address[];
  /** Fills in the placeholders of a command that belongs to no service. */
  expand(command: readonly string[]): string[];
  /**
   * Gives the directories to the user of the target, and runs an install command, if the target has one. Must
   * be called before the first start on an empty directory.
   * @throws KitError bad-target when it cannot be run, target-unavailable with the end of its output when it
   * fails.
   */
  install(command: readonly string[] | undefined, timeoutMs: number): Promise<void>;
  /** Kills the processes of the target and closes the receiver. May be called twice. */
  destroy(): Promise<void>;
}

/** Timeout of an install command. */
export const INSTALL_TIMEOUT_MS = 60_000;

/** Returns `{scratch}` of a target that is launched in `dir`. It is apart from the kit's own scratch files. */
export function scratchDirOf(dir: string): string {
  return join(dir, 'scratch', 'target');
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
  const { byName, submit } = await choosePorts(target);
  const releasePorts = () => {
    for (const port of byName.values()) releasePort(port);
  };
  const receiver = await protocol.receive(submit, receiverOptions(plan));
  const values = (service?: string): PlaceholderValues => ({
    ...runtime.pathsFor(service),
    data: plan.dataDir,
    scratch: scratchDirOf(dir),
    sink: runtime.sinkFor?.(receiver.sink) ?? receiver.sink,
    ports: byName,
  });
  let supervisor: TargetSupervisor | undefined;
  let deployment: Deployment;
  try {
    const scratchDir = scratchDirOf(dir);
    for (const folder of [join(dir, 'logs'), scratchDir]) mkdirSync(folder, { recursive: true });
    if (plan.scratchFrom !== undefined) copyScratch(plan.scratchFrom, scratchDir);
    deployment = runtime.deploy({
      // A process that carries this run id and service name is killed together with the service.
      runId: plan.worker === undefined ? registry.runId : `${registry.runId}-${plan.worker}`,
      services: Object.entries(target.services).map(([name, { command, env = {}, user }]) => ({
        name,
        command: expandCommand(command, values(name)),
        env: expandVariables(env, values(name)),
        user,
      })),
      scratchDir,
      workingDir: join(dir, 'scratch'),
      logDir: join(dir, 'logs'),
      dataDir: plan.dataDir,
      ports: [...byName.values()],
      sink: receiver.sink,
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
  } catch (error) {
    await receiver.close();
    releasePorts();
    throw error;
  }
  const forget = atExit(() => deployment.destroyNow());
  const created = new TargetSupervisor(deployment, {
    protocol,
    addresses: submit,
    recorder: plan.recorder,
    signal: plan.signal,
    logDir: join(dir, 'logs'),
    logDirLabel: plan.logDirLabel ?? join(dir, 'logs'),
    onFailedStart: (line) => plan.onFailedStart?.(line),
    onCrash: () => plan.onCrash?.(),
  });
  supervisor = created;
  const expand = (command: readonly string[]) => expandCommand(command, values());
  return {
    deployment,
    supervisor: created,
    receiver,
    addresses: submit,
    expand,
    async install(command, timeoutMs) {
      await deployment.handOver?.();
      if (command !== undefined)
        await runInstall(
          deployment,
          expand(command),
          timeoutMs,
          (output) =>
            `${hintOfClosedDirectory(plan.dataDir, output)}; its log is ${join(dir, 'logs', 'install.log')}`,
        );
    },
    async destroy() {
      created.expectExits();
      try {
        await deployment.destroy();
      } finally {
        // Close the receiver even when the engine has gone and nothing can be removed: an open receiver keeps
        // the kit alive.
        await receiver.close();
        releasePorts();
        forget();
      }
    },
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

/** The ports of one target on this machine. */
interface Ports {
  /** Ports by the name in `{port:name}`. */
  byName: ReadonlyMap<string, number>;
  /** Addresses to which messages are submitted. */
  submit: Address[];
}

/** Reserves a free port for each name. */
async function choosePorts(target: Target): Promise<Ports> {
  const byName = new Map<string, number>();
  for (const name of portNames(target)) byName.set(name, await reservePort());
  return { byName, submit: submitPorts(target).map((name) => localAddress(byName.get(name) ?? 0)) };
}

async function runInstall(
  deployment: Deployment,
  command: string[],
  timeoutMs: number,
  hintFor: (output: string) => string,
): Promise<void> {
  const result = await deployment.runCommand('install', command, timeoutMs).catch((error: unknown) => {
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
    `the target's install command ${how}: ${output}${hintFor(output)}`,
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
