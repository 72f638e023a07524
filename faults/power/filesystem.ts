import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';
import { mounts } from '../files/mountinfo.js';
import { unmountForeign } from '../files/remove-tree.js';
import { limitsOf, type MountLimits, whyNotAllowed } from './mount-options.js';
import { mountPoints, runTool, unmount, unmountDead } from './mounts.js';

/** The type of a filesystem and its mount options. */
export interface Filesystem {
  type: 'ext4' | 'xfs';
  /** Options as after `mount -o`, for example `commit=1,data=journal`; may be empty. */
  mountOptions: string;
}

/** The filesystem of a disk unless the user chooses another one. */
export const DEFAULT_FILESYSTEM: Filesystem = { type: 'ext4', mountOptions: '' };

/** Smallest size of a disk in bytes: mkfs.xfs refuses to make a filesystem of less than 300 MiB. */
export const MIN_DISK_BYTES = 320 * 2 ** 20;

const MKFS_ARGUMENTS: Readonly<Record<Filesystem['type'], readonly string[]>> = {
  // On a small device ext4 would choose blocks of 1 KiB. Everything is initialised at once, so that no kernel
  // thread writes to the device later in the background.
  ext4: ['-q', '-F', '-b', '4096', '-E', 'nodiscard,lazy_itable_init=0,lazy_journal_init=0'],
  xfs: ['-q', '-f', '-K'],
};

/** Returns the command that makes the filesystem in an image file or on a device. */
export function mkfsCommand({ type }: Filesystem, image: string): [string, ...string[]] {
  return [`mkfs.${type}`, ...MKFS_ARGUMENTS[type], image];
}

/**
 * Returns the command that mounts a device. The mount replays a journal that was not closed.
 * @throws MountError when an option is not allowed.
 */
export function mountCommand(
  { type, mountOptions }: Filesystem,
  device: string,
  mountPoint: string,
  limits: MountLimits = {},
): [string, ...string[]] {
  // The last of two options that contradict each other counts.
  const options = ['noatime', mountOptionsOf({ type, mountOptions }), ...limitsOf(limits)];
  return ['mount', '-t', type, '-o', options.join(','), device, mountPoint];
}

/**
 * Returns the mount options, together with those that every mount of the type needs; `noatime` and what
 * `limitsOf` returns are not among them.
 * @throws MountError when an option is not allowed.
 */
export function mountOptionsOf({ type, mountOptions }: Filesystem): string {
  const why = whyNotAllowed(type, mountOptions);
  if (why !== undefined) throw new MountError(why);
  // Copies of one disk are mounted at the same time, and xfs refuses to mount two filesystems with the same
  // id.
  // An ext4 image names its own behaviour on errors, and `panic`, in the image of a stranger, would stop this machine.
  const hasErrors = mountOptions.split(',').some((option) => option.startsWith('errors='));
  const own = type === 'xfs' ? 'nouuid' : hasErrors ? '' : 'errors=remount-ro';
  return ['nodiscard', own, mountOptions].filter(Boolean).join(',');
}

/** Makes an empty filesystem in an image file or on a device. */
export function makeFilesystem(filesystem: Filesystem, image: string): void {
  const [program, ...args] = mkfsCommand(filesystem, image);
  runTool(program, args);
}

/** Thrown when a filesystem cannot be mounted because it is damaged or does not accept its options. */
export class MountError extends Error {}

/** Mounts a device. @throws MountError with the message of mount(8). */
export function mountFilesystem(
  filesystem: Filesystem,
  device: string,
  mountPoint: string,
  limits: MountLimits = {},
): void {
  const [program, ...args] = mountCommand(filesystem, device, mountPoint, limits);
  try {
    runTool(program, args);
  } catch (error) {
    throw new MountError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

const libc = koffi.load(null);
const ioctl = libc.func('int ioctl(int fd, ulong request, _In_ uint32_t *argument)') as (
  fd: number,
  request: number,
  argument: readonly number[],
) => number;
/** ioctl FS_IOC_GOINGDOWN: the filesystem writes nothing more after this call. */
const FS_IOC_GOINGDOWN = 0x8004587d;
/** Argument of FS_IOC_GOINGDOWN: the filesystem does not write its log before it stops. */
const GOING_FLAGS_NOLOGFLUSH = 2;

/**
 * Unmounts a filesystem without writing back its dirty pages: it shuts the filesystem down first, and the
 * unmount then discards the pages. Nothing of it remains in the kernel.
 * @returns true when something was mounted there.
 * @throws Error when a process still uses the filesystem.
 */
export function dropFilesystem(mountPoint: string): boolean {
  if (!mountPoints().has(mountPoint)) return false;
  unmountForeign(mountPoint, 1);
  shutDownFilesystem(mountPoint);
  return unmount(mountPoint);
}

/**
 * Unmounts a filesystem as `dropFilesystem` does, even when a process still uses it. Only for a filesystem
 * that is not needed any more.
 */
export function forceDropFilesystem(mountPoint: string): boolean {
  if (!mountPoints().has(mountPoint)) return false;
  unmountForeign(mountPoint, 1);
  shutDownFilesystem(mountPoint);
  return unmountDead(mountPoint);
}

/**
 * Reports whether a disk of its own is mounted at a path, and nowhere else. A shutdown is for the whole
 * filesystem: that of a bind mount may be the root of this machine.
 */
function isOwnDisk(mountPoint: string): boolean {
  const all = mounts();
  const mount = all.findLast(({ point }) => point === mountPoint);
  if (mount === undefined || mount.root !== '/') return false;
  return (
    /^\/dev\/(loop\d|mapper\/plugpull-)/.test(mount.source) &&
    all.every(({ device, point }) => device !== mount.device || point === mountPoint)
  );
}

/**
 * Shuts a filesystem down. Errors are ignored: tmpfs and FUSE do not support it, and the device below may be
 * gone.
 */
function shutDownFilesystem(mountPoint: string): void {
  if (!isOwnDisk(mountPoint)) return;
  let fd: number;
  try {
    fd = openSync(mountPoint, 'r');
  } catch {
    return;
  }
  ioctl(fd, FS_IOC_GOINGDOWN, [GOING_FLAGS_NOLOGFLUSH]);
  closeSync(fd);
}
