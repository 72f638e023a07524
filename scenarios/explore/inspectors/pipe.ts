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

/** No other child of this process gets an end of it. */
const O_CLOEXEC = 0o2000000;
const POLLIN = 1;
const POLLOUT = 4;
/** So much is taken without waiting by a pipe that is ready to be written to. */
const PIPE_BUF = 4096;
const CHUNK_BYTES = 65_536;

/** Both ends of a pipe(7), as file descriptors. */
export interface Pipe {
  readFd: number;
  writeFd: number;
}

/** @throws Error when there are too many open files. */
export function makePipe(): Pipe {
  const ends = Buffer.alloc(8);
  if (pipeCall(ends, O_CLOEXEC) !== 0) throw new Error(`pipe: ${strerror(koffi.errno())}`);
  return { readFd: ends.readInt32LE(0), writeFd: ends.readInt32LE(4) };
}

/**
 * The near ends of two pipes to a program that answers: written to and read without the event loop, which costs more than
 * a short answer. Whoever waits blocks the process for as long as it says.
 */
export class PipeChannel {
  readonly #writeFd: number;
  readonly #readFd: number;
  readonly #chunk = Buffer.alloc(CHUNK_BYTES);
  /** `struct pollfd`: descriptor, events asked for, events that are there. */
  readonly #poll = Buffer.alloc(8);
  #open = true;

  /** @param writeFd is written to. @param readFd is read. Both are closed by `close`. */
  constructor(writeFd: number, readFd: number) {
    this.#writeFd = writeFd;
    this.#readFd = readFd;
  }

  /** Waits until there is something to be read, or the end; false when there is not after so many milliseconds. */
  waitReadable(timeoutMs: number): boolean {
    return this.#ready(this.#readFd, POLLIN, timeoutMs);
  }

  /**
   * What there is to be read; empty at the end of all. Waits for it unless `waits` has said true.
   * @returns bytes that are good until the next call.
   */
  read(): Buffer {
    const length = this.#open ? readSync(this.#readFd, this.#chunk, 0, CHUNK_BYTES, null) : 0;
    return this.#chunk.subarray(0, length);
  }

  /**
   * Writes what can be written within the time.
   * @returns the rest. Empty, too, when nobody is there to read it: that shows at the other pipe.
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

  #ready(fd: number, events: number, timeoutMs: number): boolean {
    if (!this.#open) return true;
    this.#poll.writeInt32LE(fd, 0);
    this.#poll.writeInt32LE(events, 4);
    // A signal ends it early, which is as good as no event.
    return pollCall(this.#poll, 1, timeoutMs) > 0;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#writeFd);
    closeSync(this.#readFd);
  }
}
