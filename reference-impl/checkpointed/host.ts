import type { Kernel } from '../common/platform/kernel.js';

/** A process that writes one slot. */
export interface Writer {
  /** Appends bytes to the slot. Resolves when it can accept more. @throws when the process has died. */
  write(bytes: Buffer): Promise<void>;
  /** Ends the input and waits for the end of the process. @returns whether it has written all bytes. */
  end(): Promise<boolean>;
}

/** The machine below the queue: the system calls, and the processes that the queue creates. */
export interface Host {
  kernel: Kernel;
  /**
   * Creates a process that writes a slot, asynchronously to this one.
   * @param fd open file of the slot. The process inherits it. If the process outlives this server, the next server removes the
   *   name of the file. The process then cannot write into a slot of the next server.
   */
  startWriter(fd: number): Writer;
}
