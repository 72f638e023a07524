import { closeSync, openSync, readSync, writeSync } from 'node:fs';

/** Flips one bit of the byte at `offset` in an existing file. */
export function flipBit(path: string, offset: number, bit: number): void {
  const file = openSync(path, 'r+');
  try {
    const byte = Buffer.alloc(1);
    if (readSync(file, byte, 0, 1, offset) !== 1) {
      throw new RangeError(`${path} has no byte at offset ${offset}`);
    }
    byte[0] = (byte[0] ?? 0) ^ (1 << bit);
    writeSync(file, byte, 0, 1, offset);
  } finally {
    closeSync(file);
  }
}
