import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { straceAvailability } from '../programs.js';
import { until } from '../waiting.js';
import { WRITE_CALLS } from './call-kinds.js';
import { straceCommand } from './strace.js';
import { descriptorOf, parseStraceLog } from './strace-log.js';

/** Default time for which the processes are traced at most, in ms. Under load a target writes many times in it. */
const TRACE_MS = 500;
/** Calls whose first argument is the descriptor of a file that they change. */
const CHANGING_CALLS = [...WRITE_CALLS, 'ftruncate', 'fallocate', 'fsync', 'fdatasync'];
/** Access modes of an open file in `/proc/PID/fdinfo`: 1 is write-only, 2 is read and write. */
const ACCESS_MODE = 3;
const DELETED = / \(deleted\)$/;

/**
 * Returns the regular files outside `directory` to which the processes write: the files that they hold open for
 * writing or map, and, when there are none and strace is installed, the files that they change within `limitMs`. It
 * names what it can see: a process that cannot be traced, or that has just exited, adds nothing.
 * @param ignored paths of files or directories that are left out, such as the log files of the kit.
 * @param log path of the strace log, which is removed.
 */
export async function filesWrittenOutside(
  pids: readonly number[],
  directory: string,
  ignored: readonly string[],
  log: string,
  limitMs = TRACE_MS,
): Promise<string[]> {
  const open = filesOpenOutside(pids, directory, ignored);
  if (open.length > 0) return open;
  const isWanted = (path: string) => isOutside(path, directory, ignored);
  return [...new Set(await tracedWrites(pids, isWanted, log, limitMs))].sort();
}

/**
 * Returns the regular files outside `directory` that the processes have open for writing, or map writable and shared.
 * @param ignored paths of files or directories that are left out.
 */
export function filesOpenOutside(
  pids: readonly number[],
  directory: string,
  ignored: readonly string[],
): string[] {
  const open = pids.flatMap((pid) => [...openForWriting(pid), ...sharedMappings(pid)]);
  return [...new Set(open.filter((path) => isOutside(path, directory, ignored)))].sort();
}

function isOutside(path: string, directory: string, ignored: readonly string[]): boolean {
  const roots = [directory, '/dev', '/proc', '/sys', ...ignored];
  // Leave out the logs that strace writes for the kit.
  return path.startsWith('/') && !path.endsWith('.strace') && !roots.some((root) => isBelow(path, root));
}

/** Returns whether a process maps a file below `directory` so that it can write to the file. */
export function mapsFilesBelow(directory: string, pids: readonly number[]): boolean {
  return pids.some((pid) => sharedMappings(pid).some((path) => isBelow(path, directory)));
}

function isBelow(path: string, root: string): boolean {
  return path === root || path.startsWith(`${root}/`);
}

function openForWriting(pid: number): string[] {
  return listOrNothing(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      const descriptor = `/proc/${pid}/fd/${fd}`;
      const flags = /^flags:\s*0*([0-7]+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1'))?.[1];
      if ((Number.parseInt(flags ?? '0', 8) & ACCESS_MODE) === 0 || !statSync(descriptor).isFile()) return [];
      const path = readlinkSync(descriptor);
      // A deleted file is a temporary one: nothing finds it again after a restart.
      return DELETED.test(path) ? [] : [path];
    } catch {
      // The process has closed the file or has exited.
      return [];
    }
  });
}

/** Returns the paths of the files that a process maps shared and writable. */
function sharedMappings(pid: number): string[] {
  let maps: string;
  try {
    maps = readFileSync(`/proc/${pid}/maps`, 'utf8');
  } catch {
    return [];
  }
  return maps.split('\n').flatMap((line) => {
    const path = /^\S+ .w.s \S+ \S+ \d+ +(\/.*)$/.exec(line)?.[1];
    return path === undefined || DELETED.test(path) ? [] : [path];
  });
}

/**
 * Attaches strace to the processes until it has seen a call that changes a wanted file, at most for `limitMs`.
 * Resolves to the paths of those files.
 */
async function tracedWrites(
  pids: readonly number[],
  isWanted: (path: string) => boolean,
  log: string,
  limitMs: number,
): Promise<string[]> {
  if (!straceAvailability().available || pids.length === 0) return [];
  const [program = '', ...flags] = straceCommand({ log, calls: CHANGING_CALLS, showPaths: true });
  // --seccomp-bpf works only for a process that strace itself starts.
  const args = [
    ...flags.filter((flag) => flag !== '--seccomp-bpf'),
    ...pids.flatMap((pid) => ['-p', `${pid}`]),
  ];
  const strace = spawn(program, args, { stdio: 'ignore' });
  const exited = new Promise<void>((resolve) => {
    strace.on('error', () => resolve());
    strace.on('exit', () => resolve());
  });
  const seen = () => changedFiles(log).filter(isWanted);
  try {
    await until(() => strace.exitCode !== null || seen().length > 0, limitMs);
    // SIGTERM makes strace detach, so that the processes go on.
    strace.kill('SIGTERM');
    await exited;
    return seen();
  } finally {
    rmSync(log, { force: true });
  }
}

/** Returns the regular files that the calls of a strace log have changed; none if there is no log. */
function changedFiles(log: string): string[] {
  if (!existsSync(log)) return [];
  return parseStraceLog(readFileSync(log, 'latin1')).flatMap(({ args: [first], result }) => {
    const path = result?.startsWith('-1') ? undefined : descriptorOf(first)?.path;
    return path !== undefined && statSync(path, { throwIfNoEntry: false })?.isFile() === true ? [path] : [];
  });
}

function listOrNothing(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
