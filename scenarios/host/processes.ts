import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { throwIfExhausted } from '../../faults/exhausted.js';

/** One process as /proc shows it. */
export interface ProcessEntry {
  pid: number;
  parent: number;
  group: number;
  /** Device number of the process's terminal; 0 when it has none. */
  terminal: number;
  /**
   * One letter: `R`, `S`, `T`, `t`, `Z`, … A process whose first thread has ended while others run is not a zombie: they may
   * still write, and hold files open. Its state is `R`.
   */
  state: string;
  /** Start time in clock ticks since boot; together with the pid it identifies one process of this boot. */
  startTicks: number;
}

// When this process can open no more files, the readers of /proc throw: a running process must not count as ended. Every other
// failure means that the process has ended.

/** Reads /proc/PID/stat; returns undefined when no process has this id. */
export function processEntry(pid: number): ProcessEntry | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch (error) {
    throwIfExhausted(error);
    return undefined;
  }
  // Skip to the last closing bracket: the command name before it may itself contain brackets and blanks.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state = '?'] = fields;
  const threads = Number(fields[17]);
  return {
    pid,
    state: state === 'Z' && threads > 1 ? 'R' : state,
    parent: Number(fields[1]),
    group: Number(fields[2]),
    terminal: Number(fields[4]),
    startTicks: Number(fields[19]),
  };
}

/** Lists every process that is not a zombie. */
export function allProcesses(): ProcessEntry[] {
  const entries: ProcessEntry[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const entry = processEntry(Number(name));
    if (entry !== undefined && entry.state !== 'Z' && entry.state !== 'X') entries.push(entry);
  }
  return entries;
}

/**
 * Reads an environment variable with which the process was started; returns undefined when it is not set or
 * not readable.
 */
export function environmentOf(pid: number, variable: string): string | undefined {
  const text = readEnvironment(pid);
  const prefix = `${variable}=`;
  for (const entry of text.split('\0')) {
    if (entry.startsWith(prefix)) return entry.slice(prefix.length);
  }
  return undefined;
}

/** Returns the environment of a process as the kernel shows it, of another thread if the first one has ended; or ''. */
function readEnvironment(pid: number): string {
  const text = readText(`/proc/${pid}/environ`);
  if (text !== '') return text;
  let threads: string[];
  try {
    threads = readdirSync(`/proc/${pid}/task`);
  } catch (error) {
    throwIfExhausted(error);
    return '';
  }
  for (const thread of threads) {
    const ofThread = readText(`/proc/${pid}/task/${thread}/environ`);
    if (ofThread !== '') return ofThread;
  }
  return '';
}

/** Reads a file of /proc or /sys; returns '' when it is gone, as that of an ended process, or belongs to another user. */
export function readText(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    throwIfExhausted(error);
    return '';
  }
}

/** Returns the mount namespace of a process in the form `mnt:[NUMBER]`; undefined when it is not readable. */
export function mountNamespaceOf(pid: number): string | undefined {
  return readLinkOf(`/proc/${pid}/ns/mnt`);
}

/** Returns the network namespace of a process in the form `net:[NUMBER]`; undefined when it is not readable. */
export function networkNamespaceOf(pid: number): string | undefined {
  return readLinkOf(`/proc/${pid}/ns/net`);
}

/** Returns the pid namespace of a process in the form `pid:[NUMBER]`; undefined when it is not readable. */
export function pidNamespaceOf(pid: number | 'self'): string | undefined {
  return readLinkOf(`/proc/${pid}/ns/pid`);
}

/** Lists what the open descriptors of a process lead to; empty when it has ended, or is another user's. */
export function openFilesOf(pid: number): string[] {
  let names: string[];
  try {
    names = readdirSync(`/proc/${pid}/fd`);
  } catch (error) {
    throwIfExhausted(error);
    return [];
  }
  return names.flatMap((name) => readLinkOf(`/proc/${pid}/fd/${name}`) ?? []);
}

/** Returns what a link in /proc leads to; undefined when the process has ended, or is another user's. */
export function readLinkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (error) {
    throwIfExhausted(error);
    return undefined;
  }
}

/** Returns the command line of a process with blanks between its words; '' when it has none. */
export function commandLineOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').filter(Boolean).join(' ');
  } catch (error) {
    throwIfExhausted(error);
    return '';
  }
}

/**
 * Start times (clock ticks since boot) of processes without a run's marker, by pid. Such a process never gets
 * the marker later; only its children can.
 */
const unmarked = new Map<number, number>();

/**
 * Reports whether the process has all of the run's markers in its environment. A process without a marker is
 * not read again.
 */
export function isMarked(
  { pid, startTicks }: ProcessEntry,
  markers: Readonly<Record<string, string>>,
): boolean {
  if (unmarked.get(pid) === startTicks) return false;
  for (const [variable, value] of Object.entries(markers)) {
    const actual = environmentOf(pid, variable);
    if (actual === undefined) unmarked.set(pid, startTicks);
    if (actual !== value) return false;
  }
  return true;
}

/**
 * Sends a signal; returns false when the process is gone already. A negative pid addresses a process group.
 */
export function sendSignal(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ESRCH') return false;
    throw error;
  }
}

/**
 * Returns the id of this boot of the machine. It keeps process ids of an earlier boot from being taken for
 * live ones.
 */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}
