import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { constants } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type Dockerode from 'dockerode';
import { KitError, messageOf } from '../../../conformance/errors.js';
import type { Service } from '../../../faults/fault.js';
import { until } from '../../../faults/waiting.js';
import { BoundedLog } from '../../host/bounded-log.js';
import { sendSignal } from '../../host/processes.js';
import { type ContainerProcesses, NO_PROCESSES } from './container-processes.js';
import { toEngineError, tolerateGone } from './engine.js';

type Signal = 'SIGKILL' | 'SIGSTOP' | 'SIGCONT' | 'SIGTERM';

/** Parts of a deployment that a service uses. */
export interface ContainerServiceOptions {
  engine: Dockerode;
  address: string;
  logPath: string;
  /** Makes a container for the command and does not start it. */
  create(command: readonly string[], env: Readonly<Record<string, string>>): Promise<Dockerode.Container>;
  /**
   * Lets a container that was just started see the current boot, before its command begins. `pid` is the id of
   * its first process.
   */
  enterBoot(container: Dockerode.Container, pid: number): Promise<void>;
  /** Finds the processes of a container; returns undefined when the kit cannot see them. */
  findProcesses(pid: number, containerId: string): ContainerProcesses | undefined;
  /** Reports a start. `pid` is 0 when it is not the id of a process of this machine. */
  onStarted(incarnation: number, pid: number): void;
  onExited(incarnation: number, code: number | null, signal: string | null): void;
}

type State = { kind: 'down' } | { kind: 'up'; container: Dockerode.Container; members: ContainerProcesses };

/**
 * One service as a container. After its death the container is started again with the same file system, and
 * after a crash of the machine a new one.
 */
export class ContainerService implements Service {
  readonly name: string;
  readonly #command: readonly string[];
  readonly #options: ContainerServiceOptions;
  #state: State = { kind: 'down' };
  /** The container of the plain command. A container with a wrapper or with variables is used once. */
  #reusable: Dockerode.Container | undefined;
  #singleUse: Dockerode.Container | undefined;
  #starting: Promise<void> | undefined;
  #incarnation = 0;

  constructor(name: string, command: readonly string[], options: ContainerServiceOptions) {
    this.name = name;
    this.#command = command;
    this.#options = options;
  }

  pids(): number[] {
    return this.#state.kind === 'up' ? this.#state.members.pids() : [];
  }

  /**
   * Sends a signal to every process of the container, without the container engine where that is possible.
   * The engine takes 50 ms for a signal, so that a crash of several services would become several crashes.
   * The engine also signals only the first process, and it does not answer while a process waits for its
   * disk.
   * @returns the number of processes that got the signal.
   */
  async signal(signal: Signal): Promise<number> {
    // Wait for a start under way: a container that is coming up would outlive a signal that comes too early.
    await this.#starting?.catch(() => {});
    const state = this.#state;
    if (state.kind === 'down') return 0;
    const pids = state.members.pids();
    const count = pids.length;
    try {
      if (state.members.isLocal && canSignal(pids))
        return pids.filter((pid) => sendSignal(pid, signal)).length;
      const reached = await tolerateGone(signalThroughEngine(state.container, signal));
      return reached ? count : 0;
    } catch (error) {
      throw toEngineError(error, this.#options.address);
    }
  }

  /**
   * Kills the processes without waiting for the container engine. The containers stay and are removed later.
   */
  killNow(): void {
    const pids = this.pids();
    if (this.#state.kind === 'down' || !this.#state.members.isLocal || !canSignal(pids)) return;
    for (const pid of pids) sendSignal(pid, 'SIGKILL');
  }

  async start(wrap: readonly string[] = [], env: Readonly<Record<string, string>> = {}): Promise<void> {
    // Concurrent callers share one start: two would start two containers.
    this.#starting ??= this.#run(wrap, env)
      .catch((error: unknown) => {
        throw toEngineError(error, this.#options.address);
      })
      .finally(() => {
        this.#starting = undefined;
      });
    return this.#starting;
  }

  /** Removes the containers of the service, whose file systems a reboot does not preserve. */
  async forgetContainers(): Promise<void> {
    const containers = [this.#reusable, this.#singleUse];
    this.#reusable = undefined;
    this.#singleUse = undefined;
    for (const container of containers)
      if (container !== undefined) await tolerateGone(container.remove({ force: true }));
  }

  async waitForExit(timeoutMs: number): Promise<void> {
    await this.#starting?.catch(() => {});
    const gone = await until(() => this.#state.kind === 'down', timeoutMs);
    if (!gone)
      throw new Error(
        `service ${this.name}: its container has not ended after ${timeoutMs} ms; processes ${this.pids().join(', ')}`,
      );
  }

  async #run(wrap: readonly string[], env: Readonly<Record<string, string>>): Promise<void> {
    if (this.#state.kind === 'up') {
      if (this.pids().length > 0) return;
      await until(() => this.#state.kind === 'down', EXIT_TIMEOUT_MS);
    }
    const container = await this.#containerFor([...wrap, ...this.#command], env, wrap.length === 0);
    const output = await followOutput(this.#options.engine, container, this.#options.logPath);
    await container.start().catch((error: unknown) => {
      output.close();
      throw error;
    });
    const { State } = await container.inspect();
    await this.#options.enterBoot(container, State.Pid);
    const incarnation = ++this.#incarnation;
    const members = await this.#findProcesses(container, State.Pid);
    this.#state = { kind: 'up', container, members };
    this.#options.onStarted(incarnation, members.isLocal ? State.Pid : 0);
    void this.#waitForExit(container, incarnation, output.written);
  }

  /**
   * Finds the processes of a container that was just started. A container that has died already has none, and
   * the container engine may take a moment to notice. Only a container that keeps running without visible
   * processes has them on another machine.
   * @throws KitError target-unavailable when they are on another machine.
   */
  async #findProcesses(container: Dockerode.Container, pid: number): Promise<ContainerProcesses> {
    const endMs = performance.now() + PROCESSES_TIMEOUT_MS;
    for (;;) {
      const members = this.#options.findProcesses(pid, container.id);
      if (members !== undefined) return members;
      const { State } = await container.inspect();
      if (!State.Running) return NO_PROCESSES;
      if (performance.now() > endMs) break;
      await delay(PROCESSES_POLL_MS);
    }
    throw new KitError(
      'target-unavailable',
      `the containers of the engine at ${this.#options.address} are not processes of this machine: a local engine is needed`,
    );
  }

  async #containerFor(
    command: readonly string[],
    env: Readonly<Record<string, string>>,
    isUnwrapped: boolean,
  ): Promise<Dockerode.Container> {
    if (isUnwrapped && Object.keys(env).length === 0) {
      this.#reusable ??= await this.#options.create(command, env);
      return this.#reusable;
    }
    if (this.#singleUse !== undefined) await tolerateGone(this.#singleUse.remove({ force: true }));
    this.#singleUse = undefined;
    this.#singleUse = await this.#options.create(command, env);
    return this.#singleUse;
  }

  async #waitForExit(
    container: Dockerode.Container,
    incarnation: number,
    written: Promise<void>,
  ): Promise<void> {
    let status: number | undefined;
    try {
      status = ((await container.wait()) as { StatusCode: number }).StatusCode;
    } catch {
      // The engine has gone, or the container was removed by force. In both cases it does not run any more.
    }
    // Save the last output before the service counts as dead. The timeout keeps the kit from hanging when the
    // engine hangs.
    await Promise.race([written, delay(OUTPUT_TIMEOUT_MS, undefined, { ref: false })]);
    this.#state = { kind: 'down' };
    this.#options.onExited(incarnation, ...decodeExitStatus(status));
  }
}

const EXIT_TIMEOUT_MS = 10_000;
const PROCESSES_TIMEOUT_MS = 5000;
const PROCESSES_POLL_MS = 50;
const OUTPUT_TIMEOUT_MS = 1000;
const SIGNAL_NAMES = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name]));

/**
 * Decodes an exit status into code and signal: container engines add 128 to the number of the signal, as
 * shells do.
 */
export function decodeExitStatus(status: number | undefined): [number | null, string | null] {
  const signal = SIGNAL_NAMES.get((status ?? 0) - 128);
  return signal === undefined ? [status ?? null, null] : [null, signal];
}

/** Interval between two checks of the log of a service, in ms. */
const LOG_CHECK_MS = 100;

/** The output of a container on its way to the log file. */
interface Output {
  /** Resolves when the file holds everything that the container printed. */
  written: Promise<void>;
  /** Closes the file of a container that could not be started: no output will come. */
  close(): void;
}

/** Appends what the container prints to a file. Must be called before the container is started. */
async function followOutput(
  engine: Dockerode,
  container: Dockerode.Container,
  logPath: string,
): Promise<Output> {
  const output = await container.attach({ stream: true, stdout: true, stderr: true });
  const bounded = new BoundedLog(logPath);
  const log = createWriteStream(logPath, { flags: 'a' });
  await once(log, 'open');
  const checks = setInterval(() => bounded.check(), LOG_CHECK_MS);
  checks.unref();
  log.once('close', () => {
    clearInterval(checks);
    bounded.compact();
  });
  engine.modem.demuxStream(output, log, log);
  output.on('error', (error) => log.end(`plugpull: output lost: ${messageOf(error)}\n`));
  output.on('end', () => log.end());
  return {
    written: new Promise((resolve) => log.on('close', resolve)),
    close: () => log.end(),
  };
}

/**
 * Reports whether this user may signal all processes that still live: an image may run them as another user.
 */
function canSignal(pids: readonly number[]): boolean {
  return pids.every((pid) => {
    try {
      process.kill(pid, 0);
      return true;
    } catch (error) {
      return !(error instanceof Error && 'code' in error && error.code === 'EPERM');
    }
  });
}

/**
 * Sends a signal through the container engine, for processes that the kit cannot signal. The engine pauses
 * the whole container.
 */
function signalThroughEngine(container: Dockerode.Container, signal: Signal): Promise<unknown> {
  switch (signal) {
    case 'SIGSTOP':
      return container.pause();
    case 'SIGCONT':
      return container.unpause();
    default:
      return container.kill({ signal });
  }
}
