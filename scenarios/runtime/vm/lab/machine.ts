import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { removeTree } from '../../../../faults/files/remove-tree.js';
import { until } from '../../../../faults/waiting.js';
import { reservePort } from '../../../host/ports.js';
import { processEntry, sendSignal } from '../../../host/processes.js';
import type { Registry } from '../../../host/registry.js';
import { RUN_VARIABLE } from '../../runtime.js';
import { Agent } from './agent.js';
import { QmpMonitor } from './qmp.js';

/** Program that runs a lab VM. */
export const QEMU = 'qemu-system-x86_64';
/** Memory of a lab VM, in MiB. */
export const MEMORY_MIB = 1536;

/** Accelerator of QEMU. `kvm`: the processor's virtualisation; `tcg`: emulation in software. */
export type Accelerator = 'kvm' | 'tcg';

/**
 * Paths of a lab VM's files: kernel, initial root, the two disks, and the saved state of a booted machine, if
 * any.
 */
export interface MachineFiles {
  kernel: string;
  initrd: string;
  root: string;
  data: string;
  state: string;
}

/** Description of a lab VM to start. */
export interface MachinePlan {
  files: MachineFiles;
  accelerator: Accelerator;
  /**
   * `first`: boot and write to the disks themselves; `trial`: boot; `resumed`: continue from the saved state.
   */
  start: 'first' | 'trial' | 'resumed';
  /**
   * Directory for the console's log, QEMU's output and the monitor. The directory is made at the start, and
   * removed with the machine.
   */
  dir: string;
  registry: Registry;
  /** Time after which the VM counts as dead if its console has printed nothing. */
  consoleTimeoutMs?: number;
}

/** Data with which another program finds a running lab VM. */
export interface MachineAddress {
  pid: number;
  startTicks: number;
  agentPort: number;
  enginePort: number;
  dir: string;
}

const LOOPBACK = '127.0.0.1';
const GUEST_ADDRESS = '10.0.2.15';
const GUEST_AGENT_PORT = 2374;
const GUEST_ENGINE_PORT = 2375;
const RESUME_TIMEOUT_MS = 30_000;
const QUIT_TIMEOUT_MS = 10_000;
const POLL_MS = 50;

/** A running virtual machine of the lab. */
export class Machine {
  readonly address: MachineAddress;
  readonly agent: Agent;

  private constructor(address: MachineAddress, agent: Agent) {
    this.address = address;
    this.agent = agent;
  }

  /**
   * Starts a lab VM and waits until its agent, the program that runs commands in the VM, answers.
   * @throws Error when the agent does not answer in time, with the last lines of QEMU and of the console;
   * nothing is left then.
   */
  static async start(plan: MachinePlan, timeoutMs: number): Promise<Machine> {
    const directory = { kind: 'directory', path: plan.dir } as const;
    plan.registry.made(directory);
    mkdirSync(plan.dir, { recursive: true, mode: 0o700 });
    const agentPort = await reservePort();
    const enginePort = await reservePort();
    const pid = await spawnQemu(plan, agentPort, enginePort);
    const startTicks = processEntry(pid)?.startTicks ?? 0;
    plan.registry.made({ kind: 'process', pid, startTicks });
    const address = { pid, startTicks, agentPort, enginePort, dir: plan.dir };
    try {
      if (plan.start === 'resumed') await resume(address);
      return new Machine(address, await waitForAgent(address, timeoutMs, plan.consoleTimeoutMs));
    } catch (error) {
      await killAndWait(address);
      const logLines = lastLogLines(plan.dir);
      removeTree(plan.dir);
      plan.registry.gone(directory);
      throw new Error(`${error instanceof Error ? error.message : String(error)}${logLines}`, {
        cause: error,
      });
    }
  }

  /**
   * Connects to a lab VM that was started before, perhaps by another program.
   * @throws Error when the VM does not answer.
   */
  static async find(address: MachineAddress): Promise<Machine> {
    return new Machine(address, await Agent.open(address.agentPort));
  }

  /**
   * Forwards a port of loopback to the same port of the lab VM.
   * @param to address of loopback, and the one of the lab VM.
   */
  async forward(port: number, to = { kit: LOOPBACK, guest: GUEST_ADDRESS }): Promise<void> {
    await this.#withMonitor(async (monitor) => {
      const reply = await monitor.humanCommand(`hostfwd_add net tcp:${to.kit}:${port}-${to.guest}:${port}`);
      if (reply !== '') throw new Error(`port ${port} of the lab VM: ${reply}`);
    });
  }

  /** Ends the forwarding of a port. */
  async unforward(port: number, { kit } = { kit: LOOPBACK }): Promise<void> {
    await this.#withMonitor((monitor) => monitor.humanCommand(`hostfwd_remove net tcp:${kit}:${port}`));
  }

  /** Pauses the lab VM, writes its memory and devices to the file `state`, and ends the VM. */
  async save(): Promise<void> {
    await this.#withMonitor(async (monitor) => {
      await monitor.execute('stop');
      await monitor.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
      await monitor.execute('migrate', { uri: 'exec:cat > state' });
      await until(
        async () => (await migrationStatus(monitor)) !== 'active',
        RESUME_TIMEOUT_MS,
        undefined,
        POLL_MS,
      );
      const status = await migrationStatus(monitor);
      if (status !== 'completed') throw new Error(`the state of the lab VM cannot be saved: ${status}`);
    });
    await this.stop();
  }

  async stop(): Promise<void> {
    this.agent.close();
    await killAndWait(this.address);
  }

  killNow(): void {
    killMachine(this.address);
  }

  async #withMonitor<T>(work: (monitor: QmpMonitor) => Promise<T>): Promise<T> {
    const monitor = await openMonitor(this.address.pid);
    try {
      return await work(monitor);
    } finally {
      monitor.close();
    }
  }
}

/** Reports whether the process at an address is still the lab VM that was started there. */
export function isMachineAlive({ pid, startTicks }: MachineAddress): boolean {
  const entry = processEntry(pid);
  return entry?.startTicks === startTicks && entry.state !== 'Z';
}

/** Sends SIGKILL to the process at an address, if it is still the lab VM that was started there. */
export function killMachine(address: MachineAddress): void {
  if (isMachineAlive(address)) sendSignal(address.pid, 'SIGKILL');
}

async function killAndWait(address: MachineAddress): Promise<void> {
  killMachine(address);
  const gone = await until(() => !isMachineAlive(address), QUIT_TIMEOUT_MS);
  if (!gone) throw new Error(`the lab VM, process ${address.pid}, cannot be killed`);
}

async function spawnQemu(plan: MachinePlan, agentPort: number, enginePort: number): Promise<number> {
  const { dir, files, registry } = plan;
  // Use names in its directory: QEMU splits paths at commas, and its shell splits them at blanks.
  for (const name of ['root', 'data', 'state'] as const) symlinkSync(files[name], join(dir, name));
  const messages = openSync(join(dir, 'qemu.log'), 'a');
  try {
    const child = spawn(QEMU, qemuArguments(plan, agentPort, enginePort), {
      cwd: dir,
      detached: true,
      stdio: ['ignore', messages, messages],
      // QEMU makes unnamed files in TMPDIR for what a resumed machine writes to its disks.
      env: { ...process.env, TMPDIR: dir, [RUN_VARIABLE]: registry.runId },
    });
    await once(child, 'spawn');
    // Let the process that started the machine end before it.
    child.unref();
    child.on('error', () => {});
    return child.pid ?? 0;
  } finally {
    closeSync(messages);
  }
}

function qemuArguments(
  { files, accelerator, start }: MachinePlan,
  agentPort: number,
  enginePort: number,
): string[] {
  const forward = (from: number, to: number) => `hostfwd=tcp:127.0.0.1:${from}-${GUEST_ADDRESS}:${to}`;
  // `unsafe` lets the host's cache lose data when the host dies. That is harmless: the kernel inside is under
  // test.
  const drive = (name: string) =>
    `file=${name},if=virtio,format=raw,cache=unsafe,snapshot=${start === 'first' ? 'off' : 'on'}`;
  return [
    ['-machine', `pc,accel=${accelerator}`],
    ['-cpu', accelerator === 'kvm' ? 'host,migratable=on' : 'max'],
    ['-smp', '2'],
    ['-m', `${MEMORY_MIB}`],
    ['-nodefaults', '-display', 'none', '-no-reboot'],
    ['-kernel', files.kernel, '-initrd', files.initrd],
    ['-append', 'console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off'],
    ['-serial', 'file:console.log'],
    ['-drive', drive('root'), '-drive', drive('data')],
    [
      '-netdev',
      `user,id=net,${forward(agentPort, GUEST_AGENT_PORT)},${forward(enginePort, GUEST_ENGINE_PORT)}`,
    ],
    ['-device', 'virtio-net-pci,netdev=net,romfile='],
    ['-device', 'virtio-rng-pci'],
    ['-qmp', 'unix:monitor,server=on,wait=off'],
    ...(start === 'resumed' ? [['-incoming', 'exec:cat state']] : []),
  ].flat();
}

/**
 * Connects to the monitor of a lab VM. The path through /proc is short, however long the path of the
 * directory is.
 */
async function openMonitor(pid: number): Promise<QmpMonitor> {
  return QmpMonitor.open(`/proc/${pid}/cwd/monitor`);
}

/** Waits until QEMU has loaded the saved state, and lets the lab VM run. */
async function resume(address: MachineAddress): Promise<void> {
  let monitor: QmpMonitor | undefined;
  await until(
    async () => {
      monitor = await openMonitor(address.pid).catch(() => undefined);
      return monitor !== undefined || !isMachineAlive(address);
    },
    RESUME_TIMEOUT_MS,
    undefined,
    POLL_MS,
  );
  if (monitor === undefined) throw new Error('the lab VM did not start');
  const opened = monitor;
  try {
    const loaded = await until(
      async () => ((await opened.execute('query-status')) as { status: string }).status !== 'inmigrate',
      RESUME_TIMEOUT_MS,
      undefined,
      POLL_MS,
    );
    if (!loaded) throw new Error('the saved state of the lab VM was not loaded in time');
    await opened.execute('cont');
  } finally {
    opened.close();
  }
}

async function migrationStatus(monitor: QmpMonitor): Promise<string> {
  const { status } = (await monitor.execute('query-migrate')) as { status?: string };
  // Not requested yet, being set up, or under way: the caller waits in each case.
  return ['none', 'setup', 'device', undefined].includes(status) ? 'active' : (status ?? 'active');
}

async function waitForAgent(
  address: MachineAddress,
  timeoutMs: number,
  consoleTimeoutMs = timeoutMs,
): Promise<Agent> {
  const startMs = performance.now();
  const isSilent = () =>
    performance.now() - startMs > consoleTimeoutMs && statSync(join(address.dir, 'console.log')).size === 0;
  let agent: Agent | undefined;
  await until(
    async () => {
      agent = await Agent.open(address.agentPort).catch(() => undefined);
      return agent !== undefined || !isMachineAlive(address) || isSilent();
    },
    timeoutMs,
    undefined,
    POLL_MS,
  );
  if (agent === undefined) {
    throw new Error(
      isMachineAlive(address) ? `the lab VM did not answer in ${timeoutMs} ms` : 'the lab VM has ended',
    );
  }
  return agent;
}

function lastLogLines(dir: string): string {
  const lastLines = (file: string) => {
    try {
      return readFileSync(join(dir, file), 'utf8').trim().split('\n').slice(-2).join(' | ');
    } catch {
      return '';
    }
  };
  const logLines = [lastLines('qemu.log'), lastLines('console.log')].filter((text) => text !== '');
  return logLines.length === 0 ? '' : `: ${logLines.join(' | ')}`;
}
