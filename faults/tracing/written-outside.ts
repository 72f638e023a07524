import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { straceAvailability } from '../programs.js';
import { until } from '../waiting.js';
import { WRITE_CALLS } from './call-kinds.js';
import { straceCommand } from './strace.js';
import { descriptorOf, parseStraceLog, readStraceLog } from './strace-log.js';

/** Default time for which the processes are traced at most, in ms. Under load a target writes many times in it. */
const TRACE_MS = 500;
/** Calls whose first argument is the descriptor of a file that they change. */
const CHANGING_CALLS = [...WRITE_CALLS, 'ftruncate', 'fallocate', 'fsync', 'fdatasync'];
/** Access modes of an open file in `/proc/PID/fdinfo`: 1 is write-only, 2 is read and write. */
const ACCESS_MODE = 3;
const DELETED = / \(deleted\)$/;
/** Upper bound of the entries of the directories in which a renamed file is looked for. */
const MAX_SIBLINGS = 2000;
/** Permission bit of directories that unrelated programs share, such as /tmp. */
const STICKY = 0o1000;

/** How `filesWrittenOutside` looks for the files. */
export interface OutsideSearch {
  /** Time for which the processes are traced at most, in ms. */
  limitMs?: number;
  /** Returns whether the search can end with these files. Default: with any file. */
  isEnough?(files: readonly string[]): boolean;
}

/**
 * Returns the regular files outside `directory` to which the processes write: the files that they hold open for
 * writing or map, and, when these are not enough and strace is installed, the files that they change within `limitMs`.
 * It names what it can see: a process that cannot be traced, or that has just exited, adds nothing.
 * @param ignored paths of files or directories that are left out, such as the log files of the kit.
 * @param log path of the strace log, which is removed.
 */
export async function filesWrittenOutside(
  pids: readonly number[],
  directory: string,
  ignored: readonly string[],
  log: string,
  { limitMs = TRACE_MS, isEnough = (files) => files.length > 0 }: OutsideSearch = {},
): Promise<string[]> {
  const open = filesOpenOutside(pids, directory, ignored);
  if (isEnough(open)) return open;
  const isWanted = (path: string) => isOutside(path, directory, ignored);
  const traced = await tracedWrites(pids, isWanted, log, limitMs, (files) => isEnough([...open, ...files]));
  return [...new Set([...open, ...traced])].sort();
}

/**
 * Returns the path by which the kit reads a file that it knows by its path in one of the processes: in a container,
 * this path leads to another file, or nowhere.
 */
export function readablePath(path: string, pids: readonly number[]): string {
  const isFile = (one: string) => {
    try {
      return statSync(one, { throwIfNoEntry: false })?.isFile() === true;
    } catch {
      return false;
    }
  };
  return pids.map((pid) => `/proc/${pid}/root${path}`).find(isFile) ?? path;
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
 * Attaches strace to the processes until the wanted files that they change are enough, at most for `limitMs`.
 * Resolves to the paths of those files.
 */
async function tracedWrites(
  pids: readonly number[],
  isWanted: (path: string) => boolean,
  log: string,
  limitMs: number,
  isEnough: (files: readonly string[]) => boolean,
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
  const seen = () => changedFiles(log, pids).filter(isWanted);
  let seenCount = 0;
  const hasEnough = () => {
    const files = seen();
    // Ask only about new files: the answer may need their content.
    if (files.length === seenCount) return false;
    seenCount = files.length;
    return isEnough(files);
  };
  try {
    await until(() => strace.exitCode !== null || hasEnough(), limitMs);
    // SIGTERM makes strace detach, so that the processes go on.
    strace.kill('SIGTERM');
    await exited;
    return seen();
  } finally {
    rmSync(log, { force: true });
  }
}

/** Returns the regular files that the calls of a strace log have changed; none if there is no log. */
function changedFiles(log: string, pids: readonly number[]): string[] {
  const paths = new Set<string>();
  for (const { args, result } of parseStraceLog(readStraceLog(log))) {
    const path = result?.startsWith('-1') ? undefined : descriptorOf(args[0])?.path;
    if (path?.startsWith('/')) paths.add(path);
  }
  return [...paths].flatMap((path) => {
    const stats = statSync(readablePath(path, pids), { throwIfNoEntry: false });
    if (stats === undefined) return renamedTo(path);
    return stats.isFile() ? [path] : [];
  });
}

/**
 * Returns the file that a written file has probably become: a spool such as a maildir writes a temporary file and
 * renames it, within its directory or to one beside it. That is the file with the same name, otherwise the one that
 * changed last. A directory that programs share is left out, because that file could be of any program.
 */
function renamedTo(path: string): string[] {
  const folder = dirname(path);
  const beside = isShared(dirname(folder))
    ? []
    : listOrNothing(dirname(folder)).map((name) => join(dirname(folder), name));
  const folders = [...new Set([folder, ...beside])].filter((one) => !isShared(one));
  const files = folders
    .flatMap((one) => listOrNothing(one).map((name) => join(one, name)))
    .slice(0, MAX_SIBLINGS)
    .flatMap((file) => {
      const stats = statSync(file, { throwIfNoEntry: false });
      return stats?.isFile() ? [{ file, changedMs: stats.ctimeMs }] : [];
    })
    .sort((one, other) => other.changedMs - one.changedMs);
  const found = files.find(({ file }) => basename(file) === basename(path)) ?? files[0];
  return found === undefined ? [] : [found.file];
}

function isShared(folder: string): boolean {
  const stats = statSync(folder, { throwIfNoEntry: false });
  return folder === '/' || stats === undefined || (stats.mode & STICKY) !== 0;
}

function listOrNothing(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
