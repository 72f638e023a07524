import { readSync, writeSync } from 'node:fs';

const CHUNK_BYTES = 256 * 1024;
const RETRY_INTERVAL_MS = 1;

/** Argument by which the program of the queue becomes a process that writes one slot. */
export const WRITE_SLOT = 'write-slot';

/**
 * Writes one slot: copies standard input to standard output, which is the open file. When the server dies, the input ends. No
 * server then uses the slot.
 * @throws the errors of node:fs, such as ENOSPC. The process then does not exit with code 0.
 */
export function writeSlot(): void {
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  let position = 0;
  for (let length = readInput(chunk); length > 0; length = readInput(chunk)) {
    for (let done = 0; done < length; ) done += writeSync(1, chunk, done, length - done, position + done);
    position += length;
  }
}

/** Reads from the pipe. Node may have made it non-blocking. */
function readInput(chunk: Buffer): number {
  for (;;) {
    try {
      return readSync(0, chunk, 0, chunk.length, null);
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_INTERVAL_MS);
    }
  }
}
