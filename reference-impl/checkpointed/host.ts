import type { Kernel } from '../common/platform/kernel.js';

/** A process that writes one slot. */
export interface Writer {
  /** Hands over bytes that follow those before. Resolves when more may come. @throws when the process has died. */
  write(bytes: Buffer): Promise<void>;
  /** Ends the input and waits for the end of the process. @returns whether it has written all bytes. */
  end(): Promise<boolean>;
}

/** The machine below the queue: the system calls, and the processes that the queue creates. */
export interface Host {
  kernel: Kernel;
  /**
   * Creates a process that writes a slot, asynchronously to this one.
   * @param fd open file of the slot. The process inherits it. A process that outlives this one therefore writes to a file
   *   that no longer has a name, and not into a slot of its successor.
   */
  startWriter(fd: number): Writer;
}
