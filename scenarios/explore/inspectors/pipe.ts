import { closeSync, readSync, writeSync } from 'node:fs';
import koffi from 'koffi';

const libc = koffi.load(null);

const pipeCall = libc.func('int pipe2(_Out_ void *ends, int flags)') as (
  ends: Buffer,
  flags: number,
) => number;
const pollCall = libc.func('int poll(_Inout_ void *fds, ulong count, int timeoutMs)') as (
  fds: Buffer,
  count: number,
  timeoutMs: number,
) => number;
const strerror = libc.func('const char *strerror(int number)') as (number: number) => string;

/** Flag of pipe2(2): no other child process inherits the ends of the pipe. */
const O_CLOEXEC = 0o2000000;
const POLLIN = 1;
const POLLOUT = 4;
/** Number of bytes that a pipe accepts without blocking when poll(2) reports it as writable. */
const PIPE_BUF = 4096;
const CHUNK_BYTES = 65_536;

/** Both ends of a pipe(7), as file descriptors. */
export interface Pipe {
  readFd: number;
  writeFd: number;
}

/** Makes a pipe. @throws Error when there are too many open files. */
export function makePipe(): Pipe {
  const ends = Buffer.alloc(8);
  if (pipeCall(ends, O_CLOEXEC) !== 0) throw new Error(`pipe: ${strerror(koffi.errno())}`);
  return { readFd: ends.readInt32LE(0), writeFd: ends.readInt32LE(4) };
}

/**
 * This process's ends of two pipes to a program that answers requests. It writes and reads without the event
 * loop, which would take longer than a short answer. A call that waits blocks the whole process for up to
 * `timeoutMs`.
 */
export class PipeChannel {
  readonly #writeFd: number;
  readonly #readFd: number;
  readonly #chunk = Buffer.alloc(CHUNK_BYTES);
  /** `struct pollfd`: descriptor (4 bytes), requested events (2 bytes), returned events (2 bytes). */
  readonly #poll = Buffer.alloc(8);
  #open = true;

  /** @param writeFd end to write to. @param readFd end to read from. `close` closes both. */
  constructor(writeFd: number, readFd: number) {
    this.#writeFd = writeFd;
    this.#readFd = readFd;
  }

  /**
   * Waits until there is data to read or the other end is closed. Returns false when the time is over
   * before.
   */
  waitReadable(timeoutMs: number): boolean {
    return this.#ready(this.#readFd, POLLIN, timeoutMs);
  }

  /**
   * Reads the available data. Blocks without a time limit unless `waitReadable` has returned true before.
   * @returns the bytes, valid until the next call; empty when the other end is closed.
   */
  read(): Buffer {
    const length = this.#open ? readSync(this.#readFd, this.#chunk, 0, CHUNK_BYTES, null) : 0;
    return this.#chunk.subarray(0, length);
  }

  /**
   * Writes as many bytes as possible within the time.
   * @returns the bytes that were not written. Also empty when the reader is gone: the end of the other pipe
   *   shows that.
   */
  write(bytes: Buffer, timeoutMs: number): Buffer {
    let left = bytes;
    while (left.length > 0 && this.#ready(this.#writeFd, POLLOUT, timeoutMs)) {
      try {
        left = left.subarray(writeSync(this.#writeFd, left, 0, Math.min(left.length, PIPE_BUF)));
      } catch {
        return Buffer.alloc(0);
      }
    }
    return left;
  }

  /** Waits with poll(2) until the descriptor is ready. */
  #ready(fd: number, events: number, timeoutMs: number): boolean {
    if (!this.#open) return true;
    this.#poll.writeInt32LE(fd, 0);
    this.#poll.writeInt32LE(events, 4);
    // A signal ends poll(2) early with -1. That counts as no event, and the caller tries again.
    return pollCall(this.#poll, 1, timeoutMs) > 0;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#writeFd);
    closeSync(this.#readFd);
  }
}
