import { readdirSync, readFileSync } from 'node:fs';

/** One live process as /proc shows it. */
export interface ProcessEntry {
  pid: number;
  parent: number;
  group: number;
  /** Number of its terminal's device; 0 when it has none. */
  terminal: number;
  /** One letter: `R`, `S`, `T`, `t`, `Z`, … */
  state: string;
  /** Clock ticks since boot; with the pid it names one process of this boot. */
  startTicks: number;
}

/** Reads /proc/PID/stat; undefined when there is no such process. */
export function processEntry(pid: number): ProcessEntry | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The command name stands in brackets and may hold anything, brackets and blanks too.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return {
    pid,
    state: fields[0] ?? '?',
    parent: Number(fields[1]),
    group: Number(fields[2]),
    terminal: Number(fields[4]),
    startTicks: Number(fields[19]),
  };
}

/** Every process that is not a zombie. */
export function allProcesses(): ProcessEntry[] {
  const entries: ProcessEntry[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const entry = processEntry(Number(name));
    if (entry !== undefined && entry.state !== 'Z' && entry.state !== 'X') entries.push(entry);
  }
  return entries;
}

/** The value of an environment variable with which the process was started; undefined when not set or not readable. */
export function environmentOf(pid: number, variable: string): string | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/environ`, 'latin1');
  } catch {
    return undefined;
  }
  const prefix = `${variable}=`;
  for (const entry of text.split('\0')) {
    if (entry.startsWith(prefix)) return entry.slice(prefix.length);
  }
  return undefined;
}

/** Processes that were seen not to have a run's marker, by pid; only their children could ever get it. */
const unmarked = new Map<number, number>();

/** Whether the process has one of the run's markers in its environment. What was seen to have none is not read again. */
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

/** Sends a signal; false when the process is gone already. A negative pid is a process group. */
export function sendSignal(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ESRCH') return false;
    throw error;
  }
}

/** Names this boot of the machine, so that process ids of an earlier one are never taken for live ones. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}
