import { constants } from 'node:fs';
import { QueueError } from './errors.js';
import { FILE_MODE, type Kernel } from './kernel.js';
import { linux } from './linux.js';
import { EEXIST } from './native.js';

const isWouldBlock = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'EAGAIN';

/** Buffer for drained bytes, which are discarded. */
const DISCARD_BUFFER = Buffer.alloc(4096);

/**
 * Creates the FIFO if it does not exist.
 *
 * @throws QueueError `not-a-queue` when the path is something else.
 */
export function makeFifo(path: string, kernel: Kernel = linux): void {
  if (kernel.makeFifo(path, FILE_MODE) === 0) return;
  const error = kernel.errno();
  if (error !== EEXIST || !kernel.isFifo(path)) {
    throw new QueueError('not-a-queue', `${path} should be a FIFO and is not (errno ${error})`);
  }
}

/**
 * One of the FIFOs between the workers and the sync helper (patent [0037]). It is opened non-blocking, and for
 * both reading and writing: neither side then gets an end of file or EPIPE when the other side dies.
 */
export class Fifo {
  readonly fd: number;
  readonly #kernel: Kernel;
  readonly #bufferBytes: number;
  /** Buffer of the reads. The first read allocates it, because most instances only write. */
  #buffer: Buffer | undefined;

  /**
   * Opens the FIFO, and creates it if it does not exist.
   *
   * @param bufferBytes upper bound of one read, a multiple of the token size, so that no read splits a token.
   * @throws QueueError `not-a-queue` when the path is not a FIFO.
   */
  constructor(path: string, bufferBytes: number, kernel: Kernel = linux) {
    this.#kernel = kernel;
    makeFifo(path, kernel);
    this.fd = kernel.open(path, constants.O_RDWR | constants.O_NONBLOCK);
    this.#bufferBytes = bufferBytes;
  }

  /**
   * Reads the bytes that the FIFO holds now, possibly none. A read from an empty FIFO costs an exception
   * (EAGAIN), so hot paths read only when they know that bytes are there.
   *
   * @returns a view that is valid until the next read.
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

  /**
   * Reads and discards everything in the FIFO, because tokens outlive the process that they were addressed
   * to.
   */
  drain(): void {
    try {
      while (this.#kernel.read(this.fd, DISCARD_BUFFER, 0, DISCARD_BUFFER.length, null) > 0);
    } catch (error) {
      if (!isWouldBlock(error)) throw error;
    }
  }

  /**
   * Writes all of the bytes or none of them. The number of bytes may be at most PIPE_BUF (4096).
   *
   * @returns false when the FIFO is full, because no process has read it for a long time.
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
