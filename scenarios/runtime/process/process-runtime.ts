import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import type { Target } from '../../../conformance/target-file/definition.js';
import { until } from '../../../faults/waiting.js';
import { appendToLog } from '../../host/bounded-log.js';
import { collectOutput } from '../../host/output.js';
import { commandLineOf, sendSignal } from '../../host/processes.js';
import { removeSharedMemory } from '../../host/shared-memory.js';
import { stopProcesses } from '../../host/stop-processes.js';
import { killStrays, ticksNow } from '../../host/strays.js';
import { packageRoot } from '../../host/version.js';
import { BootView } from '../boot/boot-view.js';
import { giveTo } from '../disks/owner.js';
import { createNodeNetwork } from '../nodes/namespace-network.js';
import {
  type CommandResult,
  type Deployment,
  type DeploymentPlan,
  RUN_VARIABLE,
  type Runtime,
} from '../runtime.js';
import { EscapeWatch } from './escapes.js';
import { type ProcessCommand, processCommands } from './process-command.js';
import { ProcessService } from './process-service.js';
import { findAccount, requireReachable, type UserAccount } from './users.js';

const KILL_TIMEOUT_MS = 10_000;
/** Interval between two checks of the logs of the services, in ms. A service can write some ten megabytes in it. */
const LOG_CHECK_MS = 100;
/**
 * Time for the rest of a command's output after the command has ended. A process that it has left behind may keep the
 * pipe open for ever.
 */
const OUTPUT_GRACE_MS = 2000;
/** Time for an escaped process to end after the service that started it has ended in order, in ms. */
const ESCAPED_GRACE_MS = 500;

/** The runtime that runs services as plain processes on this machine. */
export const processRuntime: Runtime = {
  name: 'process',
  async available() {
    if (process.platform === 'linux') return { available: true };
    return {
      available: false,
      why: `it needs Linux (process groups and /proc); this is ${process.platform}`,
      remedy: 'run it on Linux, or in a Linux container',
    };
  },
  async prepare(target) {
    const accounts = new Map<string, UserAccount>();
    for (const [name, { user }] of Object.entries(target.services))
      if (user !== undefined) accounts.set(user, findAccount(`services.${name}.user`, user));
    return {
      name: 'process',
      pathsFor: () => ({ dir: target.dir, node: process.execPath }),
      supports: () => ({ available: true }),
      makeNetwork: (nodes, registry, firstAddress) => createNodeNetwork(nodes, registry, { firstAddress }),
      deploy: (plan) =>
        new ProcessDeployment(plan, { targetDir: target.dir, words: wordsOf(target), accounts }),
    };
  },
};

/** Returns the words of the commands that belong to no service, with the folder of the target file filled in. */
function wordsOf({ dir, install, promote, verify, nudge, crashStates }: Target): string[] {
  const commands = [install, promote, verify, nudge, crashStates?.install, crashStates?.restore];
  return commands.flatMap((command) => command ?? []).map((word) => word.replaceAll('{dir}', dir));
}

/** What the deployments of one target on this machine share. */
export interface ProcessContext {
  /** Folder of the target file. */
  targetDir?: string;
  /** Words of the commands that belong to no service. They may name files that the target needs. */
  words?: readonly string[];
  /** Accounts of the users that the target names. */
  accounts?: ReadonlyMap<string, UserAccount>;
}

/** A target whose services are plain processes, each in its own process group. */
export class ProcessDeployment implements Deployment {
  readonly services: readonly ProcessService[];
  readonly #plan: DeploymentPlan;
  readonly #accounts: ReadonlyMap<string, UserAccount>;
  readonly #boot: BootView;
  readonly #commandFor: ProcessCommand;
  readonly #commandPids = new Set<number>();
  /**
   * Ids of all services that were started: the shared memory that they have created is removed at the end.
   */
  readonly #pids = new Set<number>();
  readonly #sinceTicks = ticksNow();
  readonly #logChecks: NodeJS.Timeout;
  readonly #escapes: EscapeWatch;
  /** Command lines of the escaped processes that were reported already. */
  readonly #reported = new Set<string>();

  constructor(requested: DeploymentPlan, context: ProcessContext = {}) {
    const { targetDir, words = [], accounts = new Map() } = context;
    const plan: DeploymentPlan = {
      ...requested,
      onStarted: (service, incarnation, pid) => {
        this.#pids.add(pid);
        requested.onStarted(service, incarnation, pid);
      },
    };
    this.#plan = plan;
    this.#accounts = accounts;
    const { dataDir, workingDir, logDir, registry } = plan;
    this.#boot = new BootView({
      dir: dirname(logDir),
      keep: [dataDir, workingDir, logDir],
      // The kit itself is there, too: a target may be one of its examples, and the program of its queue.
      trees: [packageRoot(), ...(targetDir === undefined ? [] : [targetDir])],
      words: [
        ...words,
        ...plan.services.flatMap(({ command, env = {} }) => [...command, ...Object.values(env)]),
      ],
      // The nodes of a cluster know each other by name.
      hosts: plan.node?.network.addresses,
      registry,
    });
    // The directory with the namespaces of the network is not in the boot: enter them first.
    const outermost = plan.node === undefined ? [] : plan.node.network.enter(plan.node.name);
    this.#commandFor = processCommands(this.#boot, accounts, workingDir, outermost);
    const escapes = new EscapeWatch(plan.runId, this.#sinceTicks, plan.services.length);
    this.#escapes = escapes;
    this.services = plan.services.map((service) => {
      const log = join(logDir, `${service.name}.log`);
      return new ProcessService(service, plan, log, this.#commandFor, escapes);
    });
    this.#logChecks = setInterval(() => {
      for (const service of this.services) service.checkLog();
    }, LOG_CHECK_MS);
    this.#logChecks.unref();
  }

  async handOver(): Promise<void> {
    const { services, dataDir, workingDir, scratchDir } = this.#plan;
    for (const { name, user } of services) {
      const account = user === undefined ? undefined : this.#accounts.get(user);
      if (user === undefined || account === undefined) continue;
      if (user === services[0]?.user)
        for (const path of [workingDir, scratchDir, dataDir]) giveTo(path, account);
      for (const path of [workingDir, dataDir])
        requireReachable(`services.${name}.user`, user, account, path);
    }
  }

  async reboot(): Promise<string | undefined> {
    // The kernel keeps these segments when their creator dies, and a reboot ends them.
    removeSharedMemory(this.#pids);
    return this.#boot.reboot();
  }

  async runCommand(name: string, command: readonly string[], timeoutMs: number): Promise<CommandResult> {
    const { program, args, env } = this.#commandFor({ command, user: this.#plan.services[0]?.user });
    const child = spawn(program, args, {
      cwd: this.#plan.workingDir,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...env, [RUN_VARIABLE]: this.#plan.runId },
    });
    const stdout = collectOutput(child.stdout);
    const stderr = collectOutput(child.stderr);
    await once(child, 'spawn');
    const pid = child.pid ?? 0;
    this.#commandPids.add(pid);
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      sendSignal(-pid, 'SIGKILL');
    }, timeoutMs);
    try {
      const [code, signal] = await endOf(child);
      const result = { code, signal, timedOut, stdout: stdout(), stderr: stderr() };
      appendToLog(
        join(this.#plan.logDir, `${name}.log`),
        `$ ${command.join(' ')}\n${result.stdout}${result.stderr}`,
      );
      return result;
    } finally {
      clearTimeout(timer);
      this.#commandPids.delete(pid);
    }
  }

  async stop(graceMs: number): Promise<void> {
    for (const service of this.services) service.signalNow('SIGTERM');
    const ended = await until(() => this.services.every((service) => service.pids().length === 0), graceMs);
    if (ended) await until(() => this.#escapes.list().length === 0, Math.min(graceMs, ESCAPED_GRACE_MS));
    await this.destroy();
  }

  async destroy(): Promise<void> {
    // A process that dies loses its command line.
    for (const pid of this.#escapes.list()) this.#report(commandLineOf(pid));
    this.destroyNow();
    for (const service of this.services) {
      // A process that forks while it is killed leaves a child: kill until no process is left.
      const gone = await until(() => service.signalNow('SIGKILL') === 0, KILL_TIMEOUT_MS);
      if (!gone)
        throw new Error(`service ${service.name}: processes ${service.pids().join(', ')} cannot be killed`);
      await service.waitForExit(KILL_TIMEOUT_MS);
    }
    await this.#killEscaped();
    const { dataDir, workingDir, ports, node } = this.#plan;
    const criteria = {
      dirs: [dataDir, workingDir],
      // On this machine, another program may use the ports of a node.
      ports: node === undefined ? ports : [],
      network: node?.network.namespaceOf?.(node.name),
      sinceTicks: this.#sinceTicks,
    };
    // A stray that forks during a scan is found by the next scan.
    await until(() => {
      const strays = killStrays(criteria);
      for (const { command } of strays) this.#report(command);
      return strays.length === 0;
    }, KILL_TIMEOUT_MS);
    this.#escapes.end();
    removeSharedMemory(this.#pids);
    this.#boot.remove();
    clearInterval(this.#logChecks);
    for (const service of this.services) service.compactLog();
  }

  /** Kills what has escaped from the services. All of it is stopped first, because it may be forking. */
  async #killEscaped(): Promise<void> {
    const kill = () => {
      const pids = stopProcesses(
        () => this.#escapes.list(),
        (pid) => sendSignal(pid, 'SIGSTOP'),
      );
      for (const pid of pids) {
        this.#report(commandLineOf(pid));
        sendSignal(pid, 'SIGKILL');
      }
      return pids.size === 0;
    };
    if (await until(kill, KILL_TIMEOUT_MS)) return;
    const left = this.#escapes.list().map((pid) => `${pid} (${commandLineOf(pid)})`);
    throw new Error(`processes that the target has started cannot be killed: ${left.join(', ')}`);
  }

  #report(command: string): void {
    if (command === '' || this.#reported.has(command)) return;
    this.#reported.add(command);
    this.#plan.onEscaped?.(command);
  }

  destroyNow(): void {
    for (const pid of this.#commandPids) sendSignal(-pid, 'SIGKILL');
    for (const service of this.services) service.signalNow('SIGKILL');
    for (const pid of this.#escapes.list()) sendSignal(pid, 'SIGKILL');
    this.#boot.remove();
  }
}

/** Waits for the end of a command and of its output. @returns its exit code and signal. */
async function endOf(child: ChildProcess): Promise<[code: number | null, signal: string | null]> {
  const closed = once(child, 'close');
  closed.catch(() => {});
  const exit = (await once(child, 'exit')) as [number | null, string | null];
  const giveUp = setTimeout(() => {
    child.stdout?.destroy();
    child.stderr?.destroy();
  }, OUTPUT_GRACE_MS);
  await closed;
  clearTimeout(giveUp);
  return exit;
}
