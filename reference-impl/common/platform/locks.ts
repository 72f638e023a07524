import { constants } from 'node:fs';
import { assert, QueueError } from './errors.js';
import { FILE_MODE, type Kernel } from './kernel.js';
import { linux } from './linux.js';
import { EACCES, EAGAIN, EINTR, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW } from './native.js';

const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** Number of attempts without a pause in between, which take about 0.1 ms. */
const SPIN_TRIES = 100;
const NO_FDS = Buffer.alloc(8);

/**
 * Byte-range locks on one file, as open-file-description locks. The locks belong to this open file
 * description, the kernel drops them at the last close of the description, and they work across pid
 * namespaces. A lock and its release take about 1.3 µs.
 */
export class LockFile {
  readonly #kernel: Kernel;
  readonly #fd: number;
  /** A `struct flock`: i16 type, i16 whence, (pad) i64 start, i64 length, i32 pid (must be 0), (pad). */
  readonly #flock = Buffer.alloc(32);
  /**
   * The bytes of `#flock` as 32-bit words, for speed: a lone producer takes and releases the lock for every
   * message.
   */
  readonly #words = new Int32Array(this.#flock.buffer, this.#flock.byteOffset, 8);

  constructor(path: string, kernel: Kernel = linux) {
    this.#kernel = kernel;
    this.#fd = kernel.open(path, constants.O_RDWR | constants.O_CREAT, FILE_MODE);
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

  /** Locks the byte exclusively, without waiting. @returns false when it is locked elsewhere. */
  tryLock(byte: number): boolean {
    return this.#fcntl(F_OFD_SETLK, F_WRLCK, byte);
  }

  /**
   * Locks the byte exclusively. Blocks the thread for at most `timeoutMs`, because the process that holds the
   * byte may be stopped. It first retries without a pause, because the byte is mostly held for some
   * microseconds, and then once per millisecond.
   *
   * @returns false when the byte is still locked elsewhere.
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

  /**
   * Locks the byte shared, and waits for it. Turns an exclusive lock of this object into a shared one without
   * a gap.
   */
  lockShared(byte: number): void {
    assert(this.#fcntl(F_OFD_SETLKW, F_RDLCK, byte), 'a blocking shared lock is granted');
  }

  unlock(byte: number): void {
    assert(this.#fcntl(F_OFD_SETLK, F_UNLCK, byte), 'a lock of ours can be given back');
  }

  /** Returns whether another open file description holds the byte. Locks of this object do not count. */
  isHeldElsewhere(byte: number): boolean {
    this.#fcntl(F_OFD_GETLK, F_WRLCK, byte);
    return this.#flock.readInt16LE(0) !== F_UNLCK;
  }

  /** Closes the file, which releases every lock of this object. */
  close(): void {
    this.#kernel.close(this.#fd);
  }
}
