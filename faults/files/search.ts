import { closeSync, openSync, readSync } from 'node:fs';

const CHUNK_BYTES = 4 * 1024 * 1024;

/** Every offset in a file at which one of the byte strings starts, by the name of the string. */
export function findInFile(path: string, wanted: ReadonlyMap<string, Buffer>): Map<string, number[]> {
  const found = new Map<string, number[]>();
  const longest = Math.max(0, ...[...wanted.values()].map((bytes) => bytes.length));
  if (longest === 0) return found;
  const block = Buffer.alloc(CHUNK_BYTES + longest - 1);
  const file = openSync(path, 'r');
  try {
    for (let start = 0; ; start += CHUNK_BYTES) {
      const length = readSync(file, block, 0, block.length, start);
      for (const [name, bytes] of wanted) {
        for (const at of offsetsIn(block.subarray(0, length), bytes)) {
          // What starts in the overlap is found again in the next chunk.
          if (at < CHUNK_BYTES) found.set(name, [...(found.get(name) ?? []), start + at]);
        }
      }
      if (length < block.length) return found;
    }
  } finally {
    closeSync(file);
  }
}

function offsetsIn(block: Buffer, bytes: Buffer): number[] {
  const offsets: number[] = [];
  for (let at = block.indexOf(bytes); at !== -1; at = block.indexOf(bytes, at + 1)) offsets.push(at);
  return offsets;
}
