/**
 * Kinds of system calls: those by which a program changes what other programs see of it, or waits for them.
 */
export const CALL_KINDS = [
  { kind: 'sync', calls: ['msync', 'fsync', 'fdatasync', 'sync_file_range', 'syncfs', 'sync'] },
  {
    kind: 'write',
    calls: ['write', 'writev', 'pwrite64', 'pwritev', 'pwritev2', 'copy_file_range', 'sendfile', 'splice'],
  },
  { kind: 'send', calls: ['sendto', 'sendmsg', 'sendmmsg', 'write', 'writev'] },
  {
    kind: 'read',
    calls: ['read', 'readv', 'pread64', 'preadv', 'preadv2', 'recvfrom', 'recvmsg', 'recvmmsg'],
  },
  { kind: 'open', calls: ['openat', 'openat2', 'open', 'creat', 'mmap', 'munmap', 'close'] },
  {
    kind: 'name',
    calls: [
      ...['rename', 'renameat', 'renameat2', 'unlink', 'unlinkat', 'rmdir', 'link', 'linkat', 'symlink'],
      ...['symlinkat', 'mkdir', 'mkdirat', 'truncate', 'ftruncate', 'fallocate'],
    ],
  },
  { kind: 'lock', calls: ['fcntl', 'flock', 'futex'] },
  { kind: 'connect', calls: ['socket', 'bind', 'listen', 'accept', 'accept4', 'connect', 'shutdown'] },
  {
    kind: 'wait',
    calls: ['epoll_wait', 'epoll_pwait', 'epoll_pwait2', 'poll', 'ppoll', 'select', 'pselect6'],
  },
  { kind: 'ring', calls: ['io_uring_setup', 'io_uring_enter', 'io_submit'] },
] as const;

/** Name of a kind of system calls. */
export type CallKind = (typeof CALL_KINDS)[number]['kind'];

/**
 * Calls by which a program makes its writes durable, and which can fail. sync_file_range is none of them: it sends
 * pages to the drive, but not the metadata that leads to them, and it does not flush the drive's cache.
 */
export const SYNC_CALLS = ['msync', 'fsync', 'fdatasync', 'syncfs'] as const;
/** Calls by which a program writes to a file. */
export const WRITE_CALLS = ['write', 'writev', 'pwrite64', 'pwritev', 'pwritev2'] as const;
/** Calls by which a program reads a file. Programs also read sockets and pipes by some of them, and very often. */
export const READ_CALLS = ['read', 'readv', 'pread64', 'preadv', 'preadv2'] as const;
