/** A registered callback that can be taken back. */
export interface Registration {
  close(): void;
}

/**
 * Everything that the queue asks of the machine it runs on: the system calls, the clocks and the event loop, and nothing
 * above them, so that all of the queue's own code runs on whatever implements this. `linux` (linux.ts) is the machine;
 * simulation/ has one in memory, which can be cut off at any moment.
 *
 * File calls throw what node:fs throws (an error with a `code` such as ENOENT or EAGAIN).
 */
export interface Kernel {
  /** @param flags as for node:fs: a string, or O_ bits. */
  open(path: string, flags: string | number, mode?: number): number;
  close(fd: number): void;
  /** @param position in the file, or null where a FIFO is read. @returns bytes read. */
  read(fd: number, to: Buffer, at: number, length: number, position: number | null): number;
  /** @returns bytes written. */
  write(fd: number, from: Buffer, at: number, length: number, position: number | null): number;
  /** Waits until the file (or directory) is on the disk. */
  fsync(fd: number): void;
  /** The same without metadata, and without blocking this thread. */
  fdatasync(fd: number): Promise<void>;
  sizeBytes(fd: number): number;
  exists(path: string): boolean;
  isFifo(path: string): boolean;
  rename(from: string, to: string): void;
  /** Removes a file that may be missing. */
  remove(path: string): void;
  makeDirectory(path: string): void;
  list(directory: string): string[];
  /** mkfifo(2). @returns 0, or -1 with `errno`. */
  makeFifo(path: string, mode: number): number;

  /** Maps part of a file, shared and writable, without read-ahead; stores into it need no further call. */
  map(fd: number, offset: number, length: number): Buffer;
  /** A hint that part of a mapping is wanted soon. */
  willNeed(map: Buffer, offset: number, length: number): void;
  /**
   * msync(2). With `wait` it returns when the pages are on the disk (MS_SYNC), without it is only a wish (MS_ASYNC).
   * @returns 0, or the errno of the failure.
   */
  msync(map: Buffer, offset: number, length: number, wait: boolean): number;
  /** Makes the page of a byte dirty without changing it, safely against stores of other processes. */
  markDirty(map: Buffer, at: number): void;

  /** fcntl(2) with a `struct flock`. @returns 0, or -1 with `errno`. */
  fcntlLock(fd: number, command: number, flock: Buffer): number;
  errno(): number;
  /** poll(2) over `struct pollfd[]`; blocks the thread for at most `timeoutMs`. @returns how many are ready. */
  poll(fds: Buffer, count: number, timeoutMs: number): number;
  /** The same without sleep: what is awaited comes sooner than a sleeping processor wakes up. */
  busyPoll(fds: Buffer, count: number, timeoutMs: number): number;

  /** Calls back with what arrives in a FIFO, at most so many bytes at once; they are valid during the call. */
  onFifoData(fd: number, maxBytes: number, callback: (bytes: Buffer) => void): Registration;
  /** Calls back every so often, without keeping the process alive. */
  every(intervalMs: number, callback: () => unknown): Registration;
  /** Calls back after the input and output of this turn of the event loop. A promise that fails fails the process. */
  defer(callback: () => unknown): void;

  /** Milliseconds on a clock that never goes back. */
  monotonicMs(): number;
  /** Milliseconds since the epoch, on a clock that may jump. */
  wallClockMs(): number;
  randomBytes(count: number): Buffer;
  /** One line for the operator. */
  log(line: string): void;
}
