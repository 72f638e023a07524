import koffi from 'koffi';

/**
 * The few system calls that Node does not offer. Each is declared once, here; nothing else in the queue names
 * the C library.
 */
const libc = koffi.load(null);

/** `cmd` values of fcntl(2) for open-file-description locks, the same on every Linux architecture. */
export const F_OFD_GETLK = 36;
export const F_OFD_SETLK = 37;
export const F_OFD_SETLKW = 38;

export const EAGAIN = 11;
export const EACCES = 13;
export const EINTR = 4;
export const EEXIST = 17;

export const fcntlLock = libc.func('int fcntl(int fd, int cmd, _Inout_ void *flock)') as (
  fd: number,
  cmd: number,
  flock: Buffer,
) => number;

export const mkfifo = libc.func('int mkfifo(const char *path, uint mode)') as (
  path: string,
  mode: number,
) => number;

/** poll(2) over `struct pollfd[]` given as bytes; blocks the thread for at most `timeoutMs` (-1: for ever). */
export const poll = libc.func('int poll(_Inout_ void *fds, ulong count, int timeoutMs)') as (
  fds: Buffer,
  count: number,
  timeoutMs: number,
) => number;

/** mmap(2) with the file offset in full width, for regions that mmap-io cannot name (its offset is an int32). */
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

export const munmapWide = libc.func('int munmap(void *address, size_t length)') as (
  address: unknown,
  length: number,
) => number;

export const madvise = libc.func('int madvise(void *address, size_t length, int advice)') as (
  address: unknown,
  length: number,
  advice: number,
) => number;

export const msyncWide = libc.func('int msync(void *address, size_t length, int flags)') as (
  address: Buffer,
  length: number,
  flags: number,
) => number;

export const errno = (): number => koffi.errno();

/** The memory at a pointer as an ArrayBuffer; it is the mapping itself, not a copy. */
export const viewAt = (pointer: unknown, length: number): ArrayBuffer => koffi.view(pointer, length);

/** True for the pointer that mmap(2) returns on failure (MAP_FAILED, all bits set). */
export const isMapFailed = (pointer: unknown): boolean =>
  BigInt.asIntN(64, BigInt(koffi.address(pointer))) === -1n;
