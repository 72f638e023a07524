import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { allThreadsInState } from '../../faults/thread-state.js';
import { allProcesses, commandLineOf, environmentOf, type ProcessEntry } from './processes.js';

/** Matches the id of a run. */
export const RUN_ID = /\d{8}-\d{6}-[0-9a-f]{8}/;
/**
 * Environment variable that identifies every process of a run, however it has forked. Its value is the run
 * id.
 */
export const RUN_VARIABLE = 'PLUGPULL_RUN';
/** The first pid namespace of a machine, as /proc names it (PROC_PID_INIT_INO). */
const FIRST_PID_NAMESPACE = 'pid:[4026531836]';
/** First 15 bytes of `qemu-storage-daemon`: the kernel keeps no more of a program's name. */
const STORAGE_DAEMON_NAME = 'qemu-storage-da';
/** Names of programs that become the parents of orphans. */
const REAPERS = new Set(['systemd', 'init']);

/**
 * Reports whether this process sees all processes of the machine. In a container it does not, and a device or a
 * container of a run that lives outside would look like one of a dead run.
 */
export function seesAllProcesses(): boolean {
  return readLinkOf('/proc/self/ns/pid') === FIRST_PID_NAMESPACE;
}

/** A process that a run has started. */
export interface MarkedProcess extends ProcessEntry {
  runId: string;
}

/**
 * The runs of all kits on this machine as /proc shows them, with or without a registry. It reads /proc only: a look at
 * a disk or a mount point could hang.
 */
export class MachineRuns {
  /** The processes with the mark of a run. The lab VM is left out, because it outlives the command that starts it. */
  readonly processes: readonly MarkedProcess[];
  readonly #held = new Set<string>();
  readonly #attended = new Set<string>();

  constructor() {
    const entries = allProcesses();
    this.processes = entries.flatMap((entry) => {
      const runId = runIdOf(entry.pid);
      return runId === undefined || nameOf(entry.pid).startsWith('qemu-system') ? [] : [{ ...entry, runId }];
    });
    const marked = new Set(this.processes.map(({ pid }) => pid));
    const parents = new Map(entries.map(({ pid, parent }) => [pid, parent]));
    const ownPids = readLinkOf('/proc/self/ns/pid');
    for (const { pid, parent, runId } of this.processes) {
      const isOrphan = parent <= 1 || !parents.has(parent) || REAPERS.has(nameOf(parent));
      // A process in a container has the container engine as its parent, which says nothing about the kit.
      if (!isOrphan && !marked.has(parent) && readLinkOf(`/proc/${pid}/ns/pid`) === ownPids)
        this.#attended.add(runId);
    }
    for (const { pid } of entries)
      if (!marked.has(pid)) for (const runId of runsHeldBy(pid)) this.#held.add(runId);
  }

  /**
   * Reports whether the kit of a run may be alive: a process outside the run has a file of the run open, as a kit has,
   * or is the parent of one of its processes.
   */
  mayBeAlive(runId: string): boolean {
    return this.#held.has(runId) || this.#attended.has(runId);
  }
}

/** Returns the id of the run to which a process belongs; undefined when it belongs to none, or is another user's. */
function runIdOf(pid: number): string | undefined {
  return RUN_ID.exec(environmentOf(pid, RUN_VARIABLE) ?? '')?.[0];
}

function runsHeldBy(pid: number): string[] {
  let names: string[];
  try {
    names = readdirSync(`/proc/${pid}/fd`);
  } catch {
    // The process has ended, or it is another user's.
    return [];
  }
  return names.flatMap((name) => RUN_ID.exec(readLinkOf(`/proc/${pid}/fd/${name}`) ?? '')?.[0] ?? []);
}

/** A disk of a dead run that is stopped: whatever lists or syncs the disks of the machine waits for it. */
export interface HungDisk {
  /** What is stopped, for people. */
  what: string;
  runId: string;
}

/**
 * Finds disks that killed kits have left stopped. It reads /proc and /sys only, which never hangs.
 * @param isDead reports whether the kit of a run is dead.
 */
export function hungDisks(isDead = isRunDead()): HungDisk[] {
  const daemons = allProcesses().flatMap(({ pid, state }): HungDisk[] => {
    if (!'Tt'.includes(state) || nameOf(pid) !== STORAGE_DAEMON_NAME || !allThreadsInState(pid, 'TtZX'))
      return [];
    // The command line is readable for other users too, and it names the images of the run.
    const runId = runIdOf(pid) ?? RUN_ID.exec(commandLineOf(pid))?.[0];
    return runId === undefined ? [] : [{ what: `qemu-storage-daemon (process ${pid})`, runId }];
  });
  const mappings = suspendedMappings().flatMap((name): HungDisk[] => {
    const runId = name.startsWith('plugpull-') ? RUN_ID.exec(name)?.[0] : undefined;
    return runId === undefined ? [] : [{ what: `the device /dev/mapper/${name}`, runId }];
  });
  const found = [...daemons, ...mappings];
  return found.length === 0 ? [] : found.filter(({ runId }) => isDead(runId));
}

function isRunDead(): (runId: string) => boolean {
  let runs: MachineRuns | undefined;
  return (runId) => {
    runs ??= new MachineRuns();
    return !runs.mayBeAlive(runId);
  };
}

/** Describes a hung disk in one line, with the command that removes it. */
export function describeHungDisk({ what, runId }: HungDisk): string {
  return `${what} of run ${runId} is stopped and its kit is dead: losetup, mkfs, sync and du hang on this machine; plugpull clean --all removes it`;
}

/** Lists the names of all devices of the device mapper; none in a container. */
export function mappingNames(): string[] {
  return mappings().map(({ name }) => name);
}

function suspendedMappings(): string[] {
  return mappings().flatMap(({ name, suspended }) => (suspended ? [name] : []));
}

function mappings(): { name: string; suspended: boolean }[] {
  if (!seesAllProcesses()) return [];
  let devices: string[];
  try {
    devices = readdirSync('/sys/block').filter((device) => device.startsWith('dm-'));
  } catch {
    return [];
  }
  return devices.map((device) => ({
    name: readTextOf(`/sys/block/${device}/dm/name`),
    suspended: readTextOf(`/sys/block/${device}/dm/suspended`) === '1',
  }));
}

/** Returns the first 15 bytes of the name of a process's program; '' when the process is gone. */
function nameOf(pid: number): string {
  return readTextOf(`/proc/${pid}/comm`);
}

function readTextOf(path: string): string {
  try {
    return readFileSync(path, 'latin1').trim();
  } catch {
    return '';
  }
}

function readLinkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
