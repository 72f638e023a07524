import { readSync, writeSync } from 'node:fs';

// The process that writes one slot. It gets the bytes on its standard input, and the open file as its standard output. It
// exits with code 0 when it has written everything. It ends when its server dies: then its input ends, and nobody asks.

const CHUNK_BYTES = 256 * 1024;
const RETRY_INTERVAL_MS = 1;

const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
let position = 0;
for (;;) {
  const length = readInput();
  if (length === 0) break;
  for (let done = 0; done < length; ) done += writeSync(1, chunk, done, length - done, position + done);
  position += length;
}

/** Reads from the pipe. Node may have made it non-blocking. */
function readInput(): number {
  for (;;) {
    try {
      return readSync(0, chunk, 0, chunk.length, null);
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_INTERVAL_MS);
    }
  }
}
