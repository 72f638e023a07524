import { closeSync, constants, openSync } from 'node:fs';
import koffi from 'koffi';
import { sleepSync } from '../waiting.js';
import type { MountLimits } from './mount-options.js';

// System calls on block devices and filesystems, for work that is too slow with a tool in a separate process.
const libc = koffi.load(null);

const ioctlNumber = libc.func('int ioctl(int fd, ulong request, long argument)') as (
  fd: number,
  request: number,
  argument: number,
) => number;
const ioctlBytes = libc.func('int ioctl(int fd, ulong request, _Inout_ void *argument)') as (
  fd: number,
  request: number,
  argument: Buffer,
) => number;
const mountCall = libc.func(
  'int mount(const char *source, const char *target, const char *type, ulong flags, const char *data)',
) as (source: string, target: string, type: string, flags: number, data: string) => number;
const umountCall = libc.func('int umount2(const char *target, int flags)') as (
  target: string,
  flags: number,
) => number;
const strerror = libc.func('const char *strerror(int number)') as (number: number) => string;

const FICLONE = 0x40049409;
const BLKFLSBUF = 0x1261;
const FS_IOC_FIEMAP = 0xc020660b;
const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const MS_NOATIME = 1024;
const EBUSY = 16;
/** Upper bound for the wait for a busy mount point, in ms. */
const BUSY_TIMEOUT_MS = 5000;

function systemError(what: string): Error {
  return new Error(`${what}: ${strerror(koffi.errno())}`);
}

/**
 * Makes `to` share every block of `from`, without a copy (file descriptors). Returns false if the filesystem
 * cannot.
 */
export function cloneFile(from: number, to: number): boolean {
  return ioctlNumber(to, FICLONE, from) === 0;
}

/** Writes back and drops the kernel's cache of a block device (file descriptor). */
export function flushDeviceCache(device: number): void {
  if (ioctlNumber(device, BLKFLSBUF, 0) !== 0) throw systemError('BLKFLSBUF');
}

/** Thrown when the kernel refuses a filesystem because of the bytes on its disk. */
export class DamagedFilesystemError extends Error {}

/** Error numbers of the kernel for an invalid superblock, log or inode: EIO, EINVAL, EBADMSG, EUCLEAN. */
const DAMAGE_ERRNOS = new Set([5, 22, 74, 117]);

/**
 * Mounts a device with mount(2), without access times, setuid programs and device nodes.
 * @param options options as after `mount -o`.
 * @throws DamagedFilesystemError when the bytes on the disk are the cause, and another Error otherwise.
 */
export function mountAt(
  device: string,
  mountPoint: string,
  type: string,
  options: string,
  { noexec = false, readOnly = false }: MountLimits = {},
): void {
  const flags = MS_NOATIME | MS_NOSUID | MS_NODEV | (noexec ? MS_NOEXEC : 0) | (readOnly ? MS_RDONLY : 0);
  if (mountCall(device, mountPoint, type, flags, options) === 0) return;
  const number = koffi.errno();
  const error = systemError(`mount -t ${type} ${device} ${mountPoint}`);
  throw DAMAGE_ERRNOS.has(number) ? new DamagedFilesystemError(error.message) : error;
}

/**
 * Unmounts with umount2(2). It retries while the mount point is busy, because a process may be about to
 * release it.
 */
export function unmountAt(mountPoint: string): void {
  const deadline = performance.now() + BUSY_TIMEOUT_MS;
  while (umountCall(mountPoint, 0) !== 0) {
    if (koffi.errno() !== EBUSY || performance.now() > deadline) throw systemError(`umount ${mountPoint}`);
    sleepSync(1);
  }
}

/**
 * Waits until no filesystem uses a block device any more. A container that is being started has a copy of
 * every mount for a moment, and other programs have one as long as they run. An unmounted filesystem lives on
 * in such a copy, and the next mount of the device would show the old disk.
 * @returns false when the device is still in use after `timeoutMs`.
 */
export function waitUntilReleased(device: string, timeoutMs: number): boolean {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      closeSync(openSync(device, constants.O_RDONLY | constants.O_EXCL));
      return true;
    } catch {
      if (performance.now() > deadline) return false;
    }
    sleepSync(1);
  }
}

/** A contiguous part of a file on its device; all values in bytes. */
export interface Extent {
  fileOffset: number;
  deviceOffset: number;
  lengthBytes: number;
}

const HEAD_BYTES = 32;
const EXTENT_BYTES = 56;
const MAX_EXTENTS = 4096;
const FLAG_SYNC = 1;
/** Flags of extents without a known position, with encoded bytes, or not yet written (FIEMAP_EXTENT_*). */
const NOT_PLAIN_FLAGS = 0x2 | 0x4 | 0x8 | 0x80 | 0x200 | 0x400 | 0x800;

/**
 * Returns the extents of a file on its device, in the order of the file.
 * @throws Error when a part of the file is not stored on the device as plain bytes.
 */
export function extentsOf(path: string, sizeBytes: number): Extent[] {
  const request = Buffer.alloc(HEAD_BYTES + MAX_EXTENTS * EXTENT_BYTES);
  request.writeBigUInt64LE(0xffff_ffff_ffff_ffffn, 8);
  request.writeUInt32LE(FLAG_SYNC, 16);
  request.writeUInt32LE(MAX_EXTENTS, 24);
  const fd = openSync(path, 'r');
  try {
    if (ioctlBytes(fd, FS_IOC_FIEMAP, request) !== 0) throw systemError(`${path}: FIEMAP`);
  } finally {
    closeSync(fd);
  }
  const extents = Array.from({ length: request.readUInt32LE(20) }, (_, index): Extent => {
    const at = HEAD_BYTES + index * EXTENT_BYTES;
    const readU64 = (place: number) => Number(request.readBigUInt64LE(at + place));
    if ((request.readUInt32LE(at + 40) & NOT_PLAIN_FLAGS) !== 0)
      throw new Error(`${path}: expected a file that is written in full, its bytes at ${readU64(0)} are not`);
    return { fileOffset: readU64(0), deviceOffset: readU64(8), lengthBytes: readU64(16) };
  });
  let end = 0;
  for (const extent of extents) {
    if (extent.fileOffset !== end) break;
    end += extent.lengthBytes;
  }
  if (end < sizeBytes) throw new Error(`${path}: expected a file without holes, there is one at ${end}`);
  return extents;
}

/** Flags of extents without a known position, or whose bytes are inside metadata (FIEMAP_EXTENT_*). */
const NOWHERE_FLAGS = 0x2 | 0x4 | 0x200;

/**
 * Returns the extents of a file or directory that have a position on the device. Holes are left out, and nothing is
 * synced. Returns an empty list when the filesystem does not report extents.
 */
export function placedExtentsOf(path: string): Extent[] {
  const request = Buffer.alloc(HEAD_BYTES + MAX_EXTENTS * EXTENT_BYTES);
  request.writeBigUInt64LE(0xffff_ffff_ffff_ffffn, 8);
  request.writeUInt32LE(MAX_EXTENTS, 24);
  const fd = openSync(path, 'r');
  try {
    if (ioctlBytes(fd, FS_IOC_FIEMAP, request) !== 0) return [];
  } finally {
    closeSync(fd);
  }
  return Array.from({ length: request.readUInt32LE(20) }, (_, index) => HEAD_BYTES + index * EXTENT_BYTES)
    .filter((at) => (request.readUInt32LE(at + 40) & NOWHERE_FLAGS) === 0)
    .map((at) => {
      const readU64 = (place: number) => Number(request.readBigUInt64LE(at + place));
      return { fileOffset: readU64(0), deviceOffset: readU64(8), lengthBytes: readU64(16) };
    });
}

const fallocate = libc.func('int fallocate(int fd, int mode, int64 offset, int64 length)') as (
  fd: number,
  mode: number,
  offset: number,
  length: number,
) => number;
/** FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE. */
const PUNCH_HOLE = 0x01 | 0x02;

/**
 * Gives the blocks of a part of a file (descriptor) back to the filesystem. The part then reads as zeros, and the size
 * of the file does not change. Returns false if the filesystem cannot.
 */
export function punchHole(fd: number, offset: number, length: number): boolean {
  return fallocate(fd, PUNCH_HOLE, offset, length) === 0;
}
