import { closeSync, constants, lstatSync, openSync, readSync, writeSync } from 'node:fs';
import { QueueError } from '../errors.js';
import { EEXIST, errno, mkfifo } from './native.js';

const isAgain = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'EAGAIN';

/** Makes the FIFO if it is not there. @throws QueueError `not-a-queue` when something else has its name. */
export function makeFifo(path: string): void {
  if (mkfifo(path, 0o660) === 0) return;
  const error = errno();
  if (error !== EEXIST || !lstatSync(path).isFIFO()) {
    throw new QueueError('not-a-queue', `${path} should be a FIFO and is not (errno ${error})`);
  }
}

/**
 * One of the FIFOs between workers and sync helper [0037]. It is opened for reading and writing at once, so that
 * neither side sees an end of file or EPIPE when the other dies, and without blocking.
 */
export class Fifo {
  readonly fd: number;
  readonly #buffer: Buffer;

  /** `bufferBytes`: the most that one read takes; a multiple of the token size, so that no token is split. */
  constructor(path: string, bufferBytes: number) {
    makeFifo(path);
    this.fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    this.#buffer = Buffer.alloc(bufferBytes);
  }

  /**
   * What is there now, perhaps nothing; valid until the next read. An empty FIFO costs an exception (EAGAIN), so on hot
   * paths it is read only when something is known to be there.
   */
  read(): Buffer {
    try {
      const length = readSync(this.fd, this.#buffer, 0, this.#buffer.length, null);
      return this.#buffer.subarray(0, length);
    } catch (error) {
      if (isAgain(error)) return this.#buffer.subarray(0, 0);
      throw error;
    }
  }

  /** Reads until nothing is left: tokens outlive the process they were for. */
  drain(): void {
    while (this.read().length > 0);
  }

  /**
   * Writes up to PIPE_BUF (4096) bytes, all or none.
   *
   * @returns false when the FIFO is full: nobody has read it for a long time.
   */
  write(bytes: Buffer): boolean {
    try {
      return writeSync(this.fd, bytes, 0, bytes.length, null) === bytes.length;
    } catch (error) {
      if (isAgain(error)) return false;
      throw error;
    }
  }

  close(): void {
    closeSync(this.fd);
  }
}
