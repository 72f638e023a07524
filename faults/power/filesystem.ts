import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';
import { mountPoints, runTool, unmount, unmountDead } from './mounts.js';

export interface Filesystem {
  type: 'ext4' | 'xfs';
  /** As after `mount -o`, for example `commit=1,data=journal`; may be empty. */
  mountOptions: string;
}

export const DEFAULT_FILESYSTEM: Filesystem = { type: 'ext4', mountOptions: '' };

/** mkfs.xfs makes nothing smaller than 300 MiB. */
export const MIN_DISK_BYTES = 320 * 2 ** 20;

const MKFS_ARGUMENTS: Readonly<Record<Filesystem['type'], readonly string[]>> = {
  // On a small device ext4 takes blocks of 1 KiB by itself; and everything is initialised now, so that no thread of
  // the kernel writes to the device later on its own account.
  ext4: ['-q', '-F', '-b', '4096', '-E', 'nodiscard,lazy_itable_init=0,lazy_journal_init=0'],
  xfs: ['-q', '-f', '-K'],
};

/** What makes the filesystem in an image file or on a device. */
export function mkfsCommand({ type }: Filesystem, image: string): [string, ...string[]] {
  return [`mkfs.${type}`, ...MKFS_ARGUMENTS[type], image];
}

/** What mounts a device; a journal that was not closed is replayed by that. */
export function mountCommand(
  { type, mountOptions }: Filesystem,
  device: string,
  mountPoint: string,
): [string, ...string[]] {
  const options = ['noatime', mountOptionsOf({ type, mountOptions })];
  return ['mount', '-t', type, '-o', options.join(','), device, mountPoint];
}

/** What every mount needs besides its access times. */
export function mountOptionsOf({ type, mountOptions }: Filesystem): string {
  // Copies of one disk are mounted at the same time, and xfs takes no two with one id.
  const own = type === 'xfs' ? 'nouuid' : '';
  return ['nodiscard', own, mountOptions].filter(Boolean).join(',');
}

export function makeFilesystem(filesystem: Filesystem, image: string): void {
  const [program, ...args] = mkfsCommand(filesystem, image);
  runTool(program, args);
}

/** A filesystem cannot be mounted: it is damaged, or does not take its options. */
export class MountError extends Error {}

/** @throws MountError with the words of mount(8). */
export function mountFilesystem(filesystem: Filesystem, device: string, mountPoint: string): void {
  const [program, ...args] = mountCommand(filesystem, device, mountPoint);
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
/** FS_IOC_GOINGDOWN: from here on the filesystem writes nothing more; not even its log is flushed. */
const FS_IOC_GOINGDOWN = 0x8004587d;
const GOING_FLAGS_NOLOGFLUSH = 2;

/**
 * Takes a filesystem away without writing back what is dirty: it is told to go down first, and its pages are thrown
 * away by the unmount. Nothing of it stays in the kernel. True when something was mounted there.
 * @throws Error when something still uses the filesystem.
 */
export function dropFilesystem(mountPoint: string): boolean {
  if (!mountPoints().has(mountPoint)) return false;
  shutDownFilesystem(mountPoint);
  return unmount(mountPoint);
}

/** The same for a filesystem of which nothing is wanted any more, whoever still uses it. */
export function forceDropFilesystem(mountPoint: string): boolean {
  if (!mountPoints().has(mountPoint)) return false;
  shutDownFilesystem(mountPoint);
  return unmountDead(mountPoint);
}

/** Refused by filesystems that know nothing of it (tmpfs, FUSE), and impossible when the device below is gone. */
function shutDownFilesystem(mountPoint: string): void {
  let fd: number;
  try {
    fd = openSync(mountPoint, 'r');
  } catch {
    return;
  }
  ioctl(fd, FS_IOC_GOINGDOWN, [GOING_FLAGS_NOLOGFLUSH]);
  closeSync(fd);
}
