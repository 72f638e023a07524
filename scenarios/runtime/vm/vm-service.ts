import { messageOf } from '../../../conformance/errors.js';
import type { Service } from '../../../faults/fault.js';
import { runScript } from '../../../faults/power/host.js';
import { until } from '../../../faults/waiting.js';
import { appendToLog } from '../../host/bounded-log.js';
import type { CommandResult } from '../runtime.js';
import type { Agent } from './lab/agent.js';

/**
 * A container of the lab VM that keeps running: a service that dies in it can be started again without the
 * container engine.
 */
export interface HolderContainer {
  /** Process id of the container's first process, inside the lab VM. */
  pid: number;
  /** Path of the container's control group, inside the lab VM. */
  cgroup: string;
  env: Readonly<Record<string, string>>;
  /** Path of the network namespace in which its processes run; undefined: that of the container. */
  network?: string | undefined;
  /** The user of the container's processes; undefined for root. */
  user: { uid: number; gid: number } | undefined;
}

/** Parts of a deployment that a service uses. */
export interface VmServiceOptions {
  agent: Agent;
  /** Environment variables of the service. */
  env: Readonly<Record<string, string>>;
  logPath: string;
  holder(): Promise<HolderContainer>;
  onStarted(incarnation: number): void;
  onExited(incarnation: number, code: number | null, signal: string | null): void;
}

/**
 * Base of the process ids that `pids` returns. It is above the largest id that Linux assigns, so that such an
 * id cannot be taken for that of a process of this machine.
 */
const FAKE_PID_BASE = 2 ** 30;
const TIMEOUT_MS = 60_000;
const SERVICE_GROUP = 'service';

/**
 * One service in a container of the lab VM. The container keeps running while the service dies and is started
 * again, because the container engine needs seconds to start a container on emulated processors. The agent,
 * the program that runs commands in the lab VM, starts each incarnation of the service in the container's
 * namespaces and in a separate control group inside the container's group. To kill the service, the kernel
 * kills that inner group as a whole, and the container stays.
 */
export class VmService implements Service {
  readonly name: string;
  readonly #command: readonly string[];
  readonly #options: VmServiceOptions;
  #incarnation = 0;
  #isUp = false;
  #starting: Promise<void> | undefined;

  constructor(name: string, command: readonly string[], options: VmServiceOptions) {
    this.name = name;
    this.#command = command;
    this.#options = options;
  }

  pids(): number[] {
    return this.#isUp ? [FAKE_PID_BASE + this.#incarnation] : [];
  }

  async signal(signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT' | 'SIGTERM'): Promise<number> {
    await this.#starting?.catch(() => {});
    const count = this.pids().length;
    if (count === 0) return 0;
    const { cgroup: group } = await this.#options.holder();
    await runScript(this.#options.agent, SIGNAL_SCRIPTS[signal], [`${group}/${SERVICE_GROUP}`], TIMEOUT_MS);
    return count;
  }

  async start(wrap: readonly string[] = [], env: Readonly<Record<string, string>> = {}): Promise<void> {
    // Concurrent callers share one start: two would start two processes.
    this.#starting ??= this.#run([...wrap, ...this.#command], { ...this.#options.env, ...env }).finally(
      () => {
        this.#starting = undefined;
      },
    );
    return this.#starting;
  }

  async waitForExit(timeoutMs: number): Promise<void> {
    await this.#starting?.catch(() => {});
    if (await until(() => !this.#isUp, timeoutMs)) return;
    throw new Error(`service ${this.name}: it still lives after ${timeoutMs} ms in the lab VM`);
  }

  async #run(command: readonly string[], env: Readonly<Record<string, string>>): Promise<void> {
    if (this.#isUp) return;
    const holder = await this.#options.holder();
    const incarnation = ++this.#incarnation;
    this.#isUp = true;
    this.#options.onStarted(incarnation);
    void runInContainer(this.#options.agent, holder, SERVICE_GROUP, command, env).then(
      ({ code, signal, stdout, stderr }) => {
        appendToLog(this.#options.logPath, stdout + stderr);
        this.#isUp = false;
        this.#options.onExited(incarnation, code, signal);
      },
    );
  }
}

const SIGNAL_SCRIPTS = {
  SIGKILL: 'echo 1 > "$1/cgroup.kill"',
  SIGSTOP: 'echo 1 > "$1/cgroup.freeze"',
  SIGCONT: 'echo 0 > "$1/cgroup.freeze"',
  // Spare nsenter, which waits for the service's processes: its death would leave them behind.
  SIGTERM:
    'while read -r pid; do read -r name < "/proc/$pid/comm" || continue; [ "$name" = nsenter ] || kill -TERM "$pid" || true; done < "$1/cgroup.procs"',
};

/** Runs a command in a container until it ends, in a separate control group inside the container's group. */
export async function runInContainer(
  agent: Agent,
  { pid, cgroup: group, env, network, user }: HolderContainer,
  name: string,
  command: readonly string[],
  extraEnv: Readonly<Record<string, string>> = {},
): Promise<Omit<CommandResult, 'timedOut'>> {
  const userFlags = user === undefined ? [] : ['--setuid', `${user.uid}`, '--setgid', `${user.gid}`];
  const namespaceFlags = [
    '--target',
    `${pid}`,
    '--mount',
    '--uts',
    '--ipc',
    network === undefined ? '--net' : `--net=${network}`,
    '--pid',
    '--root',
    '--wd',
    ...userFlags,
  ];
  try {
    const placement = { group: `${group}/${name}`, env: { ...env, ...extraEnv } };
    return await agent.runIn(placement, ['/usr/bin/nsenter', ...namespaceFlags, '--', ...command]);
  } catch (error) {
    // The machine has gone, and with it everything that ran in it.
    return { code: null, signal: null, stdout: '', stderr: `${messageOf(error)}\n` };
  }
}
