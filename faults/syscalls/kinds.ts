/** Kinds of system calls. */
export const KINDS = [
  { kind: 'sync', calls: ['msync', 'fsync', 'fdatasync', 'sync_file_range'] },
  { kind: 'write', calls: ['write', 'writev', 'pwrite64', 'pwritev'] },
  { kind: 'send', calls: ['sendto', 'sendmsg', 'write', 'writev'] },
  { kind: 'read', calls: ['read', 'readv', 'recvfrom', 'recvmsg'] },
  { kind: 'open', calls: ['openat', 'open', 'mmap'] },
  {
    kind: 'name',
    calls: ['rename', 'renameat', 'renameat2', 'unlink', 'unlinkat', 'ftruncate', 'fallocate'],
  },
  { kind: 'lock', calls: ['fcntl', 'flock', 'futex'] },
] as const;

export type CallKind = (typeof KINDS)[number]['kind'];

/** Calls by which a program puts what it has written on the disk. */
export const SYNC_CALLS = ['msync', 'fsync', 'fdatasync', 'sync_file_range'] as const;
/** Calls by which a program writes to a file. */
export const WRITE_CALLS = ['write', 'writev', 'pwrite64', 'pwritev', 'pwritev2'] as const;
