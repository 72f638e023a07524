import koffi from 'koffi';

/**
 * The C library, for the few system calls that Node does not offer. Each call is declared once, in this file.
 * No other file of the queue uses the C library directly.
 */
const libc = koffi.load(null);

/**
 * Values of fcntl(2)'s `cmd` for open-file-description locks, which are the same on every Linux architecture.
 */
export const F_OFD_GETLK = 36;
export const F_OFD_SETLK = 37;
export const F_OFD_SETLKW = 38;

export const EAGAIN = 11;
export const EACCES = 13;
export const EINTR = 4;
export const EEXIST = 17;

/** Calls fcntl(2) with a `struct flock` given as bytes. @returns 0, or -1 with `errno()`. */
export const fcntlLock = libc.func('int fcntl(int fd, int cmd, _Inout_ void *flock)') as (
  fd: number,
  cmd: number,
  flock: Buffer,
) => number;

/** Calls mkfifo(2). @returns 0, or -1 with `errno()`. */
export const mkfifo = libc.func('int mkfifo(const char *path, uint mode)') as (
  path: string,
  mode: number,
) => number;

/**
 * Calls poll(2) over `struct pollfd[]` given as bytes. Blocks the thread for at most `timeoutMs` (-1: without
 * limit).
 */
export const poll = libc.func('int poll(_Inout_ void *fds, ulong count, int timeoutMs)') as (
  fds: Buffer,
  count: number,
  timeoutMs: number,
) => number;

/**
 * Calls mmap(2) with a 64-bit file offset, for regions that mmap-io cannot map because its offset is an
 * int32.
 */
export const mmapWide = libc.func(
  'void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)',
) as (
  address: null,
  length: number,
  protection: number,
  flags: number,
  fd: number,
  offset: number,
) => unknown;

/** Calls munmap(2) with a 64-bit length. @returns 0, or -1 with `errno()`. */
export const munmapWide = libc.func('int munmap(void *address, size_t length)') as (
  address: unknown,
  length: number,
) => number;

/** Calls madvise(2). @returns 0, or -1 with `errno()`. */
export const madvise = libc.func('int madvise(void *address, size_t length, int advice)') as (
  address: unknown,
  length: number,
  advice: number,
) => number;

/** Calls msync(2) with a 64-bit length. @returns 0, or -1 with `errno()`. */
export const msyncWide = libc.func('int msync(void *address, size_t length, int flags)') as (
  address: Buffer,
  length: number,
  flags: number,
) => number;

/** Returns the errno of the last call into the C library. */
export const errno = (): number => koffi.errno();

/** Returns the memory at a pointer as an ArrayBuffer. It is the mapping itself, not a copy. */
export const viewAt = (pointer: unknown, length: number): ArrayBuffer => koffi.view(pointer, length);

/** Returns whether a pointer is the one that mmap(2) returns on failure (MAP_FAILED, all bits set). */
export const isMapFailed = (pointer: unknown): boolean =>
  BigInt.asIntN(64, BigInt(koffi.address(pointer))) === -1n;
