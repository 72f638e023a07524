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

const pipe2 = libc.func('int pipe2(_Out_ int *ends, int flags)') as (
  ends: Int32Array,
  flags: number,
) => number;
const O_CLOEXEC = 0o2000000;

/**
 * Makes a pipe, whose two ends no other process inherits.
 * @returns the descriptors; undefined, with `errno()`, when there are too many of them.
 */
export function makePipe(): { readEnd: number; writeEnd: number } | undefined {
  const ends = new Int32Array(2);
  if (pipe2(ends, O_CLOEXEC) !== 0) return undefined;
  return { readEnd: ends[0] as number, writeEnd: ends[1] as number };
}

/** Room for a `posix_spawn_file_actions_t`, which has 80 bytes in glibc and in musl. */
const FILE_ACTIONS_BYTES = 256;
const fileActionsInit = libc.func('int posix_spawn_file_actions_init(_Inout_ void *actions)') as (
  actions: Buffer,
) => number;
const fileActionsAddDup2 = libc.func(
  'int posix_spawn_file_actions_adddup2(_Inout_ void *actions, int fd, int newFd)',
) as (actions: Buffer, fd: number, newFd: number) => number;
const fileActionsDestroy = libc.func('int posix_spawn_file_actions_destroy(_Inout_ void *actions)') as (
  actions: Buffer,
) => number;
const posixSpawn = libc.func(
  'int posix_spawn(_Out_ int *pid, const char *path, void *actions, void *attributes, const char **argv, const char **envp)',
) as (
  pid: Int32Array,
  path: string,
  actions: Buffer,
  attributes: null,
  argv: readonly (string | null)[],
  envp: readonly (string | null)[],
) => number;

/**
 * Starts a process with posix_spawn(3), which does not copy the memory map of this process as the fork of node:child_process
 * does: with some hundred MiB in memory such a fork blocks this thread for many milliseconds. The caller waits for the process
 * with `hasEndedWell`.
 *
 * @param program path of the program.
 * @param stdio descriptors of this process that become 0, 1, 2 of the new one.
 * @returns the process id; 0 when no process could be started.
 */
export function spawnSmall(program: string, args: readonly string[], stdio: readonly number[]): number {
  const actions = Buffer.alloc(FILE_ACTIONS_BYTES);
  const pid = new Int32Array(1);
  if (fileActionsInit(actions) !== 0) return 0;
  try {
    for (const [to, from] of stdio.entries()) if (fileActionsAddDup2(actions, from, to) !== 0) return 0;
    const failed = posixSpawn(pid, program, actions, null, [program, ...args, null], [null]);
    return failed === 0 ? (pid[0] ?? 0) : 0;
  } finally {
    fileActionsDestroy(actions);
  }
}

const waitpid = libc.func('int waitpid(int pid, _Out_ int *status, int options)') as (
  pid: number,
  status: Int32Array,
  options: number,
) => number;
const WNOHANG = 1;

/**
 * Looks whether a process that `spawnSmall` has started has ended, without waiting.
 * @returns undefined while it runs; otherwise whether it has ended by itself with exit code 0.
 */
export function hasEndedWell(pid: number): boolean | undefined {
  const status = new Int32Array(1);
  const found = waitpid(pid, status, WNOHANG);
  if (found === 0) return undefined;
  return found === pid && status[0] === 0;
}
