import { constants } from 'node:fs';
import { assert, QueueError } from './errors.js';
import type { Kernel } from './kernel.js';
import { linux } from './linux.js';
import { EACCES, EAGAIN, EINTR, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW } from './native.js';

const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/**
 * What each byte of the lock file stands for. The kernel releases a lock when its holder dies, whatever namespace
 * the holder lived in; a process id would be an identity in neither respect (DESIGN: every container's worker
 * may be process 1, and numbers are used again).
 */
export const LOCK = {
  /** The shared mutual exclusion lock over the index [0018]. */
  mutex: 0,
  /** Held while a process opens the queue, so that only one restores. */
  opening: 1,
  /** Held shared by every process that has the queue open. */
  users: 2,
  /** Held by the one sync helper of the data file. */
  helper: 3,
  /** Held by the worker that syncs the index. */
  indexSync: 4,
  /** Byte `firstSlot + n` is held by the worker in slot n for as long as it lives. */
  firstSlot: 64,
} as const;

/** About a tenth of a millisecond. */
const SPIN_TRIES = 100;
const NO_FDS = Buffer.alloc(8);

/**
 * Byte-range locks on one file, as open-file-description locks: owned by this opening of the file, dropped by the
 * kernel at its last close, and seen across pid namespaces. About 1.3 µs for a lock and its release.
 */
export class LockFile {
  readonly #kernel: Kernel;
  readonly #fd: number;
  /** struct flock: i16 type, i16 whence, (pad) i64 start, i64 length, i32 pid (must be 0), (pad). */
  readonly #flock = Buffer.alloc(32);
  /** The same as 32-bit words: the lock is taken and given back for every message of a lone producer. */
  readonly #words = new Int32Array(this.#flock.buffer, this.#flock.byteOffset, 8);

  constructor(path: string, kernel: Kernel = linux) {
    this.#kernel = kernel;
    this.#fd = kernel.open(path, constants.O_RDWR | constants.O_CREAT, 0o660);
  }

  #fcntl(command: number, type: number, byte: number): boolean {
    const words = this.#words;
    words.fill(0);
    words[0] = type;
    words[2] = byte;
    words[4] = 1;
    for (;;) {
      if (this.#kernel.fcntlLock(this.#fd, command, this.#flock) === 0) return true;
      const error = this.#kernel.errno();
      if (error === EINTR) continue;
      if (error === EAGAIN || error === EACCES) return false;
      throw new QueueError('unsupported', `the filesystem of the queue refuses locks: errno ${error}`);
    }
  }

  /** Takes the byte exclusively if nobody else has it. */
  tryLock(byte: number): boolean {
    return this.#fcntl(F_OFD_SETLK, F_WRLCK, byte);
  }

  /**
   * Waits (blocking the thread) until the byte is ours alone, for at most so long: whoever holds it may be stopped. Tried again
   * at once for a moment, since it is mostly held for some microseconds, and then every millisecond.
   * @returns false when somebody else still holds it.
   */
  lockWithin(byte: number, timeoutMs: number): boolean {
    if (this.tryLock(byte)) return true;
    const endMs = this.#kernel.monotonicMs() + timeoutMs;
    for (let tries = 1; this.#kernel.monotonicMs() < endMs; tries += 1) {
      if (tries > SPIN_TRIES) this.#kernel.poll(NO_FDS, 0, 1);
      if (this.tryLock(byte)) return true;
    }
    return false;
  }

  /** Shares the byte with other readers; turns an exclusive lock of ours into a shared one without a gap. */
  lockShared(byte: number): void {
    assert(this.#fcntl(F_OFD_SETLKW, F_RDLCK, byte), 'a blocking shared lock is granted');
  }

  unlock(byte: number): void {
    assert(this.#fcntl(F_OFD_SETLK, F_UNLCK, byte), 'a lock of ours can be given back');
  }

  /** Does another opening of the file hold the byte? Our own locks do not count. */
  isHeldElsewhere(byte: number): boolean {
    this.#fcntl(F_OFD_GETLK, F_WRLCK, byte);
    return this.#flock.readInt16LE(0) !== F_UNLCK;
  }

  /** Gives back everything at once. */
  close(): void {
    this.#kernel.close(this.#fd);
  }
}
