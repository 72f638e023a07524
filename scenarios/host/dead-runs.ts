import { readdirSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { allThreadsInState } from '../../faults/thread-state.js';
import { commandLine } from './command-line.js';
import {
  allProcesses,
  commandLineOf,
  environmentOf,
  openFilesOf,
  type ProcessEntry,
  pidNamespaceOf,
  readText,
} from './processes.js';

/** Matches the id of a run. */
export const RUN_ID = /\d{8}-\d{6}-[0-9a-f]{8}/;
const WHOLE_RUN_ID = new RegExp(`^${RUN_ID.source}$`);
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
  return pidNamespaceOf('self') === FIRST_PID_NAMESPACE;
}

/** Reports whether a text is the id of a run and nothing else. */
export const isRunId = (text: string): boolean => WHOLE_RUN_ID.test(text);

/**
 * Reports whether the value of the run's variable is the mark of a run. A target that runs beside others of its run has a
 * suffix in its mark.
 */
export const isMarkOf = (mark: string | undefined, runId: string): boolean =>
  mark === runId || mark?.startsWith(`${runId}-`) === true;

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
    const ownPids = pidNamespaceOf('self');
    for (const { pid, parent, runId } of this.processes) {
      const isOrphan = parent <= 1 || !parents.has(parent) || REAPERS.has(nameOf(parent));
      // A process in a container has the container engine as its parent, which says nothing about the kit.
      if (!isOrphan && !marked.has(parent) && pidNamespaceOf(pid) === ownPids) this.#attended.add(runId);
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
  return openFilesOf(pid).flatMap((path) => RUN_ID.exec(path)?.[0] ?? []);
}

/** A stopped disk of a run: whatever lists or syncs the disks of the machine waits for it. */
export interface HungDisk {
  /** What is stopped, for people. */
  what: string;
  runId: string;
  /** `unknown` when the run is another user's: only root can see whether its kit is alive. */
  kit: 'dead' | 'unknown';
}

/** A stopped disk of a run, dead or alive. */
interface SeenDisk {
  what: string;
  runId: string;
  /** User id of the owner. */
  owner: number;
}

/** Time between two looks at a stopped disk, in ms. A cut keeps a disk stopped for some milliseconds. */
const SECOND_LOOK_MS = 1500;

/**
 * Finds disks that killed kits have left stopped. It reads /proc and /sys only, which never hangs. A disk counts only if it
 * is stopped at a second look, too: the first one may have met a cut.
 */
export async function hungDisks(): Promise<HungDisk[]> {
  return confirmedHungDisks(stoppedDisks, isRunDead, () => sleep(SECOND_LOOK_MS));
}

/**
 * Finds hung disks as `hungDisks` does.
 * @param look lists the stopped disks.
 * @param newDeadCheck makes a function that reports whether the kit of a run is dead, as far as this user sees.
 * @param wait waits until the second look.
 * @param uid this user.
 */
export async function confirmedHungDisks(
  look: () => SeenDisk[],
  newDeadCheck: () => (runId: string) => boolean,
  wait: () => Promise<unknown>,
  uid = process.geteuid?.() ?? 0,
): Promise<HungDisk[]> {
  const once = () => {
    const disks = look();
    const isDead = newDeadCheck();
    return disks.filter(({ runId }) => isDead(runId));
  };
  const first = once();
  if (first.length === 0) return [];
  await wait();
  const before = new Set(first.map(({ what }) => what));
  return once()
    .filter(({ what }) => before.has(what))
    .map(({ what, runId, owner }) => ({ what, runId, kit: uid === 0 || owner === uid ? 'dead' : 'unknown' }));
}

function stoppedDisks(): SeenDisk[] {
  const ownNamespace = pidNamespaceOf('self');
  const daemons = allProcesses().flatMap(({ pid, state }): SeenDisk[] => {
    if (!'Tt'.includes(state) || nameOf(pid) !== STORAGE_DAEMON_NAME || !allThreadsInState(pid, 'TtZX'))
      return [];
    // Leave out the disks of runs in containers: they end with the container. Only root sees this of other users' disks.
    const namespace = pidNamespaceOf(pid);
    if (namespace !== undefined && namespace !== ownNamespace) return [];
    // The command line is readable for other users too, and it names the images of the run.
    const runId = runIdOf(pid) ?? RUN_ID.exec(commandLineOf(pid))?.[0];
    const owner = ownerOf(pid);
    return runId === undefined || owner === undefined
      ? []
      : [{ what: `qemu-storage-daemon (process ${pid})`, runId, owner }];
  });
  const mappings = suspendedMappings().flatMap((name): SeenDisk[] => {
    const runId = name.startsWith('plugpull-') ? RUN_ID.exec(name)?.[0] : undefined;
    // Only root makes such devices.
    return runId === undefined ? [] : [{ what: `the device /dev/mapper/${name}`, runId, owner: 0 }];
  });
  return [...daemons, ...mappings];
}

/** Returns the user id of the owner of a process; undefined when it has ended. */
function ownerOf(pid: number): number | undefined {
  try {
    return statSync(`/proc/${pid}`).uid;
  } catch {
    return undefined;
  }
}

function isRunDead(): (runId: string) => boolean {
  let runs: MachineRuns | undefined;
  return (runId) => {
    runs ??= new MachineRuns();
    return !runs.mayBeAlive(runId);
  };
}

/** Describes a hung disk in one line, with the command that removes it. */
export function describeHungDisk({ what, runId, kit }: HungDisk): string {
  if (kit === 'unknown')
    return `a disk of another user's run is stopped: ${what} of run ${runId}; while it is, losetup, mkfs, sync and du hang on this machine; if its kit is dead, ${commandLine('clean', '--all')} of that user removes it`;
  return `${what} of run ${runId} is stopped and its kit is dead: losetup, mkfs, sync and du hang on this machine; ${commandLine('clean', '--all')} removes it`;
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
    name: readText(`/sys/block/${device}/dm/name`).trim(),
    suspended: readText(`/sys/block/${device}/dm/suspended`).trim() === '1',
  }));
}

/** Returns the first 15 bytes of the name of a process's program; '' when the process is gone. */
function nameOf(pid: number): string {
  return readText(`/proc/${pid}/comm`).trim();
}
