import { constants } from 'node:fs';
import { QueueError } from './errors.js';
import type { Kernel } from './kernel.js';
import { linux } from './linux.js';
import { EEXIST } from './native.js';

const isWouldBlock = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'EAGAIN';

/** Where drained bytes go; nobody looks at them. */
const DISCARD_BUFFER = Buffer.alloc(4096);

/** Makes the FIFO if it is not there. @throws QueueError `not-a-queue` when something else has its name. */
export function makeFifo(path: string, kernel: Kernel = linux): void {
  if (kernel.makeFifo(path, 0o660) === 0) return;
  const error = kernel.errno();
  if (error !== EEXIST || !kernel.isFifo(path)) {
    throw new QueueError('not-a-queue', `${path} should be a FIFO and is not (errno ${error})`);
  }
}

/**
 * One of the FIFOs between workers and sync helper [0037]. It is opened for reading and writing at once, so that
 * neither side sees an end of file or EPIPE when the other dies, and without blocking.
 */
export class Fifo {
  readonly fd: number;
  readonly #kernel: Kernel;
  readonly #bufferBytes: number;
  /** Made by the first read: most openings only write. */
  #buffer: Buffer | undefined;

  /** `bufferBytes`: the most that one read takes; a multiple of the token size, so that no token is split. */
  constructor(path: string, bufferBytes: number, kernel: Kernel = linux) {
    this.#kernel = kernel;
    makeFifo(path, kernel);
    this.fd = kernel.open(path, constants.O_RDWR | constants.O_NONBLOCK);
    this.#bufferBytes = bufferBytes;
  }

  /**
   * What is there now, perhaps nothing; valid until the next read. An empty FIFO costs an exception (EAGAIN), so on hot
   * paths it is read only when something is known to be there.
   */
  read(): Buffer {
    this.#buffer ??= Buffer.allocUnsafeSlow(this.#bufferBytes);
    const buffer = this.#buffer;
    try {
      const length = this.#kernel.read(this.fd, buffer, 0, buffer.length, null);
      return buffer.subarray(0, length);
    } catch (error) {
      if (isWouldBlock(error)) return buffer.subarray(0, 0);
      throw error;
    }
  }

  /** Reads until nothing is left: tokens outlive the process they were for. */
  drain(): void {
    try {
      while (this.#kernel.read(this.fd, DISCARD_BUFFER, 0, DISCARD_BUFFER.length, null) > 0);
    } catch (error) {
      if (!isWouldBlock(error)) throw error;
    }
  }

  /**
   * Writes up to PIPE_BUF (4096) bytes, all or none.
   *
   * @returns false when the FIFO is full: nobody has read it for a long time.
   */
  write(bytes: Buffer): boolean {
    try {
      return this.#kernel.write(this.fd, bytes, 0, bytes.length, null) === bytes.length;
    } catch (error) {
      if (isWouldBlock(error)) return false;
      throw error;
    }
  }

  close(): void {
    this.#kernel.close(this.fd);
  }
}
