import { closeSync, constants, openSync } from 'node:fs';
import koffi from 'koffi';
import { until } from '../../faults/waiting.js';

const libc = koffi.load(null);
const flock = libc.func('int flock(int fd, int operation)') as (fd: number, operation: number) => number;

const LOCK_EX = 2;
const LOCK_NB = 4;
const EWOULDBLOCK = 11;
const POLL_MS = 100;

/** A lock that this process holds on a file. */
export interface FileLock {
  /** Releases the lock. May be called twice. */
  release(): void;
}

/**
 * Locks a file, which is made if it is missing. The kernel releases the lock when the process ends, also when it is
 * killed, so that no dead process holds one. Programs that this process starts do not inherit it.
 * @returns undefined when another process, or another part of this one, holds the lock.
 * @throws Error of the system call that failed.
 */
export function tryLock(path: string): FileLock | undefined {
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
  const fd = openSync(path, flags, 0o600);
  if (flock(fd, LOCK_EX | LOCK_NB) !== 0) {
    const errno = koffi.errno();
    closeSync(fd);
    if (errno === EWOULDBLOCK) return undefined;
    throw new Error(`${path} cannot be locked: error ${errno} of flock`);
  }
  let isHeld = true;
  return {
    release: () => {
      if (isHeld) closeSync(fd);
      isHeld = false;
    },
  };
}

/**
 * Locks a file like `tryLock`, and waits until the other process has released it.
 * @param onWait called once, before the wait.
 * @throws Error when the lock is not free after `timeoutMs`.
 */
export async function waitForLock(path: string, timeoutMs: number, onWait: () => void): Promise<FileLock> {
  let lock = tryLock(path);
  if (lock !== undefined) return lock;
  onWait();
  await until(
    () => {
      lock = tryLock(path);
      return lock !== undefined;
    },
    timeoutMs,
    undefined,
    POLL_MS,
  );
  if (lock === undefined) throw new Error(`another process holds ${path} for ${timeoutMs / 1000} s`);
  return lock;
}
