/** Mode of the directories of a queue: mail, and the key of the checksums, are for the user of the queue alone. */
export const DIRECTORY_MODE = 0o700;
/** Mode of the files of a queue, also of its lock files and FIFOs. */
export const FILE_MODE = 0o600;

/** A registered callback; `close` unregisters it. */
export interface Registration {
  close(): void;
}

/**
 * The interface between the queue and the machine that it runs on: system calls, clocks and the event loop,
 * and nothing above them. All of the queue's own code therefore runs unchanged on every implementation.
 * `linux` (linux.ts) is the real machine; simulation/ implements one in memory, whose power can be cut at any
 * moment.
 *
 * File calls throw the errors of node:fs, which have a `code` such as ENOENT or EAGAIN.
 */
export interface Kernel {
  /**
   * Opens a file.
   *
   * @param flags as for node:fs: r, r+, w, or O_ bits; O_NONBLOCK for a FIFO, O_DIRECTORY for a directory.
   * @returns the file descriptor.
   * @throws QueueError `not-a-queue` when something else is in its place, such as a FIFO or a device.
   */
  open(path: string, flags: string | number, mode?: number): number;
  close(fd: number): void;
  /**
   * Reads into `to` from index `at`.
   *
   * @param position byte in the file; null for a FIFO.
   * @returns bytes read.
   */
  read(fd: number, to: Buffer, at: number, length: number, position: number | null): number;
  /**
   * Writes from index `at` of `from`.
   *
   * @param position byte in the file; null for a FIFO.
   * @returns bytes written.
   */
  write(fd: number, from: Buffer, at: number, length: number, position: number | null): number;
  /** Blocks until the file (or directory) is on the disk. */
  fsync(fd: number): void;
  /**
   * Syncs a file like `fsync`, but without unneeded metadata.
   * @param isBlocking whether this thread may stop until then: that is quicker, because no other thread must wake up. Default: it
   *   goes on meanwhile.
   */
  fdatasync(fd: number, isBlocking?: boolean): Promise<void>;
  sizeBytes(fd: number): number;
  exists(path: string): boolean;
  isFifo(path: string): boolean;
  rename(from: string, to: string): void;
  /** Removes a file that may be missing. */
  remove(path: string): void;
  /** Makes a directory with the mode 0700. */
  makeDirectory(path: string): void;
  list(directory: string): string[];
  /** Calls mkfifo(2). @returns 0, or -1 with `errno`. */
  makeFifo(path: string, mode: number): number;

  /** Maps part of a file, shared and writable, without read-ahead. A store into it needs no further call. */
  map(fd: number, offset: number, length: number): Buffer;
  /** Hints that part of a mapping will be read soon. */
  willNeed(map: Buffer, offset: number, length: number): void;
  /**
   * Calls msync(2). With `wait` it returns when the pages are on the disk (MS_SYNC). Without `wait` it
   * guarantees nothing (MS_ASYNC).
   * @returns 0, or the errno of the failure.
   */
  msync(map: Buffer, offset: number, length: number, wait: boolean): number;
  /**
   * Marks the page of a byte dirty without changing a byte, and without losing a concurrent store of another
   * process.
   */
  markDirty(map: Buffer, at: number): void;

  /** Calls fcntl(2) with a `struct flock`. @returns 0, or -1 with `errno`. */
  fcntlLock(fd: number, command: number, flock: Buffer): number;
  errno(): number;
  /**
   * Calls poll(2) over `struct pollfd[]`; blocks the thread for at most `timeoutMs`.
   *
   * @returns number of ready ones.
   */
  poll(fds: Buffer, count: number, timeoutMs: number): number;
  /**
   * Polls like `poll`, but in a busy loop: the awaited event comes sooner than a sleeping processor wakes up.
   */
  busyPoll(fds: Buffer, count: number, timeoutMs: number): number;

  /**
   * Calls back with the bytes that arrive in a FIFO, at most `maxBytes` per call. The bytes are valid during
   * the call only.
   */
  onFifoData(fd: number, maxBytes: number, callback: (bytes: Buffer) => void): Registration;
  /** Calls back every `intervalMs`, without keeping the process alive. */
  every(intervalMs: number, callback: () => unknown): Registration;
  /** Calls back once after `delayMs`, and keeps the process alive until then. */
  after(delayMs: number, callback: () => unknown): void;
  /**
   * Calls back after the input and output of this turn of the event loop. The process fails when a returned
   * promise is rejected.
   */
  defer(callback: () => unknown): void;

  /** Milliseconds on a clock that never goes back. */
  monotonicMs(): number;
  /** Milliseconds since the epoch, on a clock that may jump. */
  wallClockMs(): number;
  randomBytes(count: number): Buffer;
  /** Prints one line for the operator. */
  log(line: string): void;
}
