import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  unlinkSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join, resolve, sep } from 'node:path';
import type koffi from 'koffi';
import { sleepSync } from '../waiting.js';
import { type Mount, mounts, mountsBelow } from './mountinfo.js';

/** Thrown when a file or directory cannot be removed. The message is one line that names it and the reason. */
export class RemovalError extends Error {
  override readonly name = 'RemovalError';
}

/** Options of `removeTree`. */
export interface RemovalOptions {
  /**
   * Mounts that may be unmounted below the path. `new` (default): those made since this process was started;
   * `all`: any, for a directory that a dead run has made.
   */
  unmount?: 'new' | 'all';
}

/** Mounts that were there when this process started: they are not made by a target of this run. */
const mountsAtStart = new Set(process.platform === 'linux' ? mounts().map(identityOf) : []);

function identityOf({ id, device, point }: Mount): string {
  return `${id} ${device} ${point}`;
}

/** Flag of open(2), which Node does not name: the file is only identified, which needs no right on it. */
const O_PATH = 0o10000000;

/** Depth to which directories are held open. Deeper ones are moved to the top, so that no depth needs more. */
const MAX_DEPTH = 16;
/** Upper bound of the attempts to empty a directory into which a dying process still writes. */
const MAX_ATTEMPTS = 20;
const RETRY_MS = 10;
/** Upper bound for the wait for a busy mount, in ms. */
const BUSY_TIMEOUT_MS = 5000;

/**
 * Removes a file, or a directory with all that is in it. Targets run as the same user as the kit, so the
 * directory may hold anything: mounts of other directories are unmounted and never entered, links are removed
 * and never followed, also not those that replace a directory meanwhile. Directories without rights and, for
 * root, immutable files are removed as well. It needs no event loop, so it can be called from an exit handler.
 * @returns false when nothing was there.
 * @throws RemovalError when something cannot be unmounted or removed.
 */
export function removeTree(path: string, { unmount = 'new' }: RemovalOptions = {}): boolean {
  if (process.platform !== 'linux') {
    rmSync(path, { recursive: true, force: true });
    return true;
  }
  const asked = resolve(path);
  requireNoNewLink(asked);
  const parent = realPathOf(dirname(asked));
  if (parent === undefined) return false;
  const real = join(parent, basename(asked));
  const isMountOfUser = unmountBelow(real, unmount);
  const fd = openSync(parent, O_PATH | constants.O_DIRECTORY);
  try {
    return removeEntry({ fd, path: parent, top: undefined }, Buffer.from(basename(asked)), isMountOfUser);
  } finally {
    closeSync(fd);
  }
}

function realPathOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
    throw new RemovalError(`${path} cannot be removed: ${codeOf(error)}`, { cause: error });
  }
}

/**
 * Refuses a path that leads through a link which was made since this process started: a target could put it
 * in the place of one of the kit's directories.
 * @throws RemovalError
 */
function requireNoNewLink(path: string): void {
  for (let way = dirname(path); way !== dirname(way); way = dirname(way)) {
    const stats = statsOf(Buffer.from(way));
    if (stats?.isSymbolicLink() && stats.ctimeMs > performance.timeOrigin)
      throw new RemovalError(
        `${path} is not removed: ${way} is a link to ${readlinkSync(way)} since the run began`,
      );
  }
}

/**
 * Unmounts what was mounted over a directory and below it since this process was started. For a directory on a
 * disk of the kit: nothing of another filesystem must be saved as evidence, or keep the disk in use.
 * @param own number of mounts at the path itself that are the kit's.
 * @param which `all`: also those made before, for a directory of a dead run.
 * @throws RemovalError when something cannot be unmounted.
 */
export function unmountForeign(path: string, own: 0 | 1, which: 'new' | 'all' = 'new'): void {
  const parent = process.platform === 'linux' ? realPathOf(dirname(resolve(path))) : undefined;
  if (parent === undefined) return;
  const real = join(parent, basename(path));
  const ours = mountsBelow(real).findIndex(({ point }) => own === 1 && point === real);
  const foreign = mountsBelow(real).filter(
    (mount, index) => index !== ours && (which === 'all' || !mountsAtStart.has(identityOf(mount))),
  );
  for (const mount of foreign.reverse()) detach(mount);
}

/**
 * Unmounts what is mounted at a path and below it, the latest mount first.
 * @returns true when the user had mounted something at the path itself before.
 */
function unmountBelow(path: string, which: 'new' | 'all'): boolean {
  let isMountOfUser = false;
  for (const mount of mountsBelow(path).reverse()) {
    if (which === 'all' || !mountsAtStart.has(identityOf(mount))) detach(mount);
    else if (mount.point === path) isMountOfUser = true;
    else
      throw new RemovalError(
        `${path} is not removed: ${mount.source} has been mounted at ${mount.point} since before the run; unmount it first`,
      );
  }
  return isMountOfUser;
}

const UMOUNT_NOFOLLOW = 8;
const MNT_DETACH = 2;
const EBUSY = 16;
const EPERM = 1;

/** Filesystems that the kit makes itself. If one of them is still in use, its writes must not go on unseen. */
const isOfKit = ({ type, source }: Mount) =>
  /^\/dev\/(loop|mapper\/plugpull-)/.test(source) || type.startsWith('fuse');

function detach(mount: Mount): void {
  const { umount2, errno } = libc();
  const failure = (code: number) => {
    const why = code === EBUSY ? 'a process uses it' : code === EPERM ? 'it needs root' : `errno ${code}`;
    return new RemovalError(
      `${mount.point} is not removed: ${mount.source} is mounted there, and cannot be unmounted: ${why}`,
    );
  };
  const deadline = performance.now() + BUSY_TIMEOUT_MS;
  while (umount2(mount.point, UMOUNT_NOFOLLOW) !== 0) {
    const code = errno();
    if (code !== EBUSY) throw failure(code);
    if (!isOfKit(mount)) {
      // It is not the kit's: take it out of the way at once. It stays where else it is mounted.
      if (umount2(mount.point, UMOUNT_NOFOLLOW | MNT_DETACH) !== 0) throw failure(errno());
      return;
    }
    if (performance.now() > deadline) throw failure(code);
    sleepSync(RETRY_MS);
  }
}

/** A directory that is held open. */
interface OpenDirectory {
  fd: number;
  /** Path for messages. */
  path: string;
  /** The directory to which deep directories are moved; undefined above it. */
  top: { fd: number; depth: number; moved: number; mount: string } | undefined;
}

/** Removes one entry of a directory. @returns false when it does not exist. */
function removeEntry(parent: OpenDirectory, name: Buffer, isMountOfUser = false): boolean {
  const stats = statsOf(entryOf(parent, name));
  if (stats === undefined) return false;
  if (!stats.isDirectory()) {
    withoutFlags(parent, name, () => unlinkSync(entryOf(parent, name)));
    return true;
  }
  const path = `${parent.path}${sep}${name.toString()}`;
  const fd = openDirectory(entryOf(parent, name), path);
  try {
    const mount = filesystemOf(fd);
    if (!isMountOfUser && mount !== (parent.top?.mount ?? filesystemOf(parent.fd)))
      throw new RemovalError(`${path} is not removed: something is mounted there`);
    const top = parent.top ?? { fd, depth: 0, moved: 0, mount };
    if (top.depth >= MAX_DEPTH) {
      moveToTop(parent, name, top);
      return true;
    }
    top.depth++;
    empty({ fd, path, top });
    top.depth--;
  } finally {
    closeSync(fd);
  }
  // The directory of a mount that the user has made stays, as a mount point must.
  if (!isMountOfUser) withoutFlags(parent, name, () => rmdirSync(entryOf(parent, name)));
  return true;
}

/** Removes everything in a directory. */
function empty(directory: OpenDirectory): void {
  allowChanges(directory.fd);
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    const moved = directory.top?.moved;
    const names = readdirSync(`/proc/self/fd/${directory.fd}`, { encoding: 'buffer' });
    if (names.length === 0) return;
    if (attempt > 0 && moved === 0) sleepSync(RETRY_MS);
    for (const name of names) removeEntry(directory, name);
    // Deep directories have come up here: the next attempt removes them.
    if (directory.top !== undefined && directory.top.moved !== moved) attempt = 0;
  }
  if (readdirSync(`/proc/self/fd/${directory.fd}`).length > 0)
    throw new RemovalError(`${directory.path} is not removed: a process goes on making files in it`);
}

/** Moves a directory to the top of what is removed. */
function moveToTop(parent: OpenDirectory, name: Buffer, top: NonNullable<OpenDirectory['top']>): void {
  const to = `/proc/self/fd/${top.fd}/.plugpull-removed-${process.pid}-${top.moved++}`;
  withoutFlags(parent, name, () => renameSync(entryOf(parent, name), to));
}

/** Returns the path of an entry that no link on the way can lead elsewhere. */
function entryOf({ fd }: OpenDirectory, name: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`/proc/self/fd/${fd}/`), name]);
}

/** Opens a directory, also one without rights; not a link. */
function openDirectory(entry: Buffer, path: string): number {
  const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants;
  try {
    return openSync(entry, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  } catch (error) {
    if (codeOf(error) !== 'EACCES')
      throw new RemovalError(`${path} is not removed: ${codeOf(error)}`, { cause: error });
  }
  const place = openSync(entry, O_PATH | O_DIRECTORY | O_NOFOLLOW);
  try {
    chmodSync(`/proc/self/fd/${place}`, 0o700);
    return openSync(`/proc/self/fd/${place}`, O_RDONLY | O_DIRECTORY);
  } catch (error) {
    throw new RemovalError(`${path} is not removed: ${codeOf(error)}`, { cause: error });
  } finally {
    closeSync(place);
  }
}

/** Gives this user the right to remove entries of its own directory. */
function allowChanges(fd: number): void {
  if ((fstatSync(fd).mode & 0o700) === 0o700) return;
  try {
    fchmodSync(fd, 0o700);
  } catch {
    // The removal of the first entry says what is wrong.
  }
}

/** Returns what identifies the filesystem and the mount of an open directory: bind mounts have one device. */
function filesystemOf(fd: number): string {
  const mount = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1];
  return `${fstatSync(fd).dev} ${mount}`;
}

const FS_IMMUTABLE_FL = 0x10;
const FS_APPEND_FL = 0x20;
const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;

/**
 * Changes an entry of a directory. If the entry or the directory is immutable or append-only, root clears these
 * flags first, and gives them back to a file that has other names.
 * @throws RemovalError
 */
function withoutFlags(parent: OpenDirectory, name: Buffer, change: () => void): void {
  try {
    change();
    return;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return;
    if (codeOf(error) !== 'EPERM') throw refusal(parent, name, error);
  }
  const directory = openSync(`/proc/self/fd/${parent.fd}`, constants.O_RDONLY | constants.O_DIRECTORY);
  const directoryFlags = clearFlags(directory);
  const fd = openForFlags(entryOf(parent, name));
  const flags = fd === undefined ? 0 : clearFlags(fd);
  try {
    change();
    if (fd !== undefined && flags !== 0 && fstatSync(fd).isFile() && fstatSync(fd).nlink > 0)
      libc().ioctl(fd, FS_IOC_SETFLAGS, [flags]);
  } catch (error) {
    throw refusal(parent, name, error);
  } finally {
    // The directory above the whole tree stays.
    if (directoryFlags !== 0 && parent.top === undefined)
      libc().ioctl(directory, FS_IOC_SETFLAGS, [directoryFlags]);
    closeSync(directory);
    if (fd !== undefined) closeSync(fd);
  }
}

function refusal({ path }: OpenDirectory, name: Buffer, error: unknown): unknown {
  if (error instanceof RemovalError) return error;
  const why = {
    EPERM: 'it or its directory is immutable (chattr -i, as root), or belongs to another user',
    EACCES: 'it is in a directory of another user',
    EBUSY: 'something is mounted there',
    EROFS: 'its filesystem is read-only',
  }[codeOf(error)];
  const text = why === undefined ? codeOf(error) : `${codeOf(error)}: ${why}`;
  return new RemovalError(`${path}${sep}${name.toString()} is not removed: ${text}`, { cause: error });
}

/** Opens a regular file or a directory; undefined for anything else. It never blocks on a FIFO or a device. */
function openForFlags(entry: Buffer): number | undefined {
  const stats = statsOf(entry);
  if (!stats?.isFile() && !stats?.isDirectory()) return undefined;
  try {
    return openSync(entry, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    return undefined;
  }
}

/** Clears the flags of an open file that forbid its removal. @returns the flags before; 0 when it had none. */
function clearFlags(fd: number): number {
  const { ioctl } = libc();
  const flags = [0];
  if (ioctl(fd, FS_IOC_GETFLAGS, flags) !== 0) return 0;
  const before = flags[0] ?? 0;
  if ((before & (FS_IMMUTABLE_FL | FS_APPEND_FL)) === 0) return 0;
  return ioctl(fd, FS_IOC_SETFLAGS, [before & ~(FS_IMMUTABLE_FL | FS_APPEND_FL)]) === 0 ? before : 0;
}

interface Libc {
  errno(): number;
  umount2(path: string, flags: number): number;
  ioctl(fd: number, request: number, argument: number[]): number;
}

let loaded: Libc | undefined;

/** Loads the calls that Node does not have. Most removals need none of them, and start faster without. */
function libc(): Libc {
  if (loaded === undefined) {
    const native = createRequire(import.meta.url)('koffi') as typeof koffi;
    const library = native.load(null);
    loaded = {
      errno: () => native.errno(),
      umount2: library.func('int umount2(const char *path, int flags)') as Libc['umount2'],
      ioctl: library.func('int ioctl(int fd, ulong request, _Inout_ uint32_t *argument)') as Libc['ioctl'],
    };
  }
  return loaded;
}

function statsOf(path: Buffer) {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch (error) {
    if (codeOf(error) === 'ENOTDIR' || codeOf(error) === 'ENOENT') return undefined;
    throw new RemovalError(`${path.toString()} cannot be looked at: ${codeOf(error)}`, { cause: error });
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
