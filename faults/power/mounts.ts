import { type ExecFileSyncOptionsWithStringEncoding, execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sleepSync } from '../waiting.js';

/**
 * Upper bound for a tool in ms. A tool that hangs would block the run; normally each takes a fraction of a
 * second.
 */
const TIMEOUT_MS = 20_000;

const EXEC_OPTIONS: ExecFileSyncOptionsWithStringEncoding & { detached: boolean } = {
  stdio: ['ignore', 'pipe', 'pipe'],
  encoding: 'utf8',
  timeout: TIMEOUT_MS,
  env: { ...process.env, LC_ALL: 'C' },
  // Use a separate process group: a Ctrl-C must reach only the kit. It would kill a tool between two of its
  // steps.
  detached: true,
};

/**
 * Error messages of tools when a filesystem refuses a write, with the code that a system call would have
 * returned.
 */
const ERRNO_MESSAGES = [
  [/No space left on device/, 'ENOSPC'],
  [/Disk quota exceeded/, 'EDQUOT'],
  [/Read-only file system/, 'EROFS'],
] as const;

/**
 * Runs a system tool and returns its output on stdout.
 * @throws Error with the tool's own message when it fails, and with a `code` such as ENOSPC when a filesystem
 *   refused a write.
 */
export function runTool(program: string, args: readonly string[]): string {
  try {
    return execFileSync(program, args, EXEC_OPTIONS);
  } catch (error) {
    const stderr = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : '';
    const what = `${program} ${args.join(' ')}: ${stderr === '' ? String(error) : stderr}`;
    const code = ERRNO_MESSAGES.find(([pattern]) => pattern.test(stderr))?.[1];
    throw Object.assign(new Error(what, { cause: error }), code && { code });
  }
}

/** One mount of this mount namespace. */
export interface MountEntry {
  mountPoint: string;
  /** Type of the filesystem, such as `ext4`, or `fuse` for a file that a storage daemon exports. */
  type: string;
}

/** Lists the mounts of this mount namespace, oldest first. It touches no mounted filesystem. */
export function mountTable(): MountEntry[] {
  const lines = readFileSync('/proc/self/mounts', 'utf8').split('\n');
  return lines.map((line) => {
    const [, mountPoint = '', type = ''] = line.split(' ');
    const unescaped = mountPoint.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
    return { mountPoint: unescaped, type };
  });
}

/** Returns every path where something is mounted. */
export function mountPoints(): Set<string> {
  return new Set(mountTable().map(({ mountPoint }) => mountPoint));
}

/**
 * Aborts the connection of a FUSE mount to its server: every process that waits for the server gets an error. Needed
 * when the server can be neither resumed nor killed. Does nothing when the mount or the control files are not there.
 */
export function abortFuse(mountPoint: string): void {
  const minor = minorOf(mountPoint);
  if (minor === undefined) return;
  const controls = mountTable().flatMap((entry) => (entry.type === 'fusectl' ? [entry.mountPoint] : []));
  for (const control of controls) {
    try {
      writeFileSync(join(control, minor, 'abort'), '1');
    } catch {
      // The connection has ended, or this control directory belongs to another mount namespace.
    }
  }
}

/**
 * Returns the minor device number of a mount, by which the kernel names its FUSE connection. A stat of the mount point
 * would wait for the server.
 */
function minorOf(mountPoint: string): string | undefined {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const fields = lines.map((line) => line.split(' ')).findLast((all) => all[4] === mountPoint);
  return fields?.[2]?.split(':')[1];
}

/** Upper bound for the wait for a busy mount point, in ms. */
const BUSY_TIMEOUT_MS = 5000;
const BUSY_RETRY_MS = 20;

/**
 * Unmounts a path. It retries while the path is busy: a process that was killed a moment ago may still hold a
 * file open, and a loop device releases its file only when the last program that inspects the device has
 * closed it.
 * @returns true when something was mounted there.
 */
export function unmount(path: string): boolean {
  if (!mountPoints().has(path)) return false;
  const deadline = performance.now() + BUSY_TIMEOUT_MS;
  for (;;) {
    try {
      runTool('umount', [path]);
      return true;
    } catch (error) {
      if (performance.now() > deadline || !/busy/.test(String(error))) throw error;
      sleepSync(BUSY_RETRY_MS);
    }
  }
}

/**
 * Unmounts a filesystem that cannot be read or written any more, because its server is dead or it was shut
 * down. A mount on top of it may remain in another mount namespace as long as programs run there; the
 * function does not wait for that.
 * @returns true when something was mounted there.
 */
export function unmountDead(path: string): boolean {
  if (!mountPoints().has(path)) return false;
  try {
    runTool('umount', [path]);
  } catch (error) {
    if (!/busy/.test(String(error))) throw error;
    runTool('umount', ['--lazy', path]);
  }
  return true;
}

/**
 * Something that survives a kill of the kit and must then be removed. A loop device is identified by the file
 * behind it.
 */
export type PowerResource =
  | { kind: 'directory'; path: string }
  | { kind: 'mount'; path: string }
  | { kind: 'loop'; path: string }
  /** A device of the device mapper. Its path is `/dev/mapper/NAME`. */
  | { kind: 'mapping'; path: string };

/**
 * What holds back every request to a disk while it is stopped: the storage daemon, or a device of the device mapper
 * with the path `/dev/mapper/NAME`.
 */
export type StoppedDisk = { kind: 'process'; pid: number } | { kind: 'mapping'; path: string };

/** Message of a cut whose disk was not stopped from `stop` to `resume`: what came after `stop` may be confirmed. */
export const RESUMED_EARLY =
  'the stopped disk was resumed before its target was killed: the kit hung for too long, or it was stopped';

/** A registry of resources. A resource is added before it is created, and deleted after it is removed. */
export interface PowerResourceRegistry {
  made(resource: PowerResource): void;
  gone(resource: PowerResource): void;
  /**
   * Called before a disk is stopped, so that a watchdog can resume it when the caller dies or hangs. While a disk is
   * stopped, many programs of the machine hang.
   */
  stopping?(disk: StoppedDisk): void;
  /** Called after the disk was resumed. */
  resumed?(disk: StoppedDisk): void;
}

/**
 * Copies a file and keeps its holes. If the filesystem supports it, the copy shares the blocks and no data is
 * copied.
 */
export function copySparse(from: string, to: string): void {
  runTool('cp', ['--sparse=always', '--reflink=auto', from, to]);
}
