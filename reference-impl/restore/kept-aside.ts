import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import type { DataBytes } from '../memory/data-map.js';
import { syncDirectory } from '../queue/install.js';
import type { Damage } from './plan.js';

const PIECE_BYTES = 256;

/** The name says which message it was and where it stood, so that keeping it twice is keeping it once. */
export const keptAsideName = (damage: Damage): string => `${damage.number}@${damage.offset}.record`;

/**
 * Copies what is left of a damaged record into a file of its own, on the disk when this returns: it is named, never
 * delivered and never silently dropped.
 *
 * @returns true when it was not kept already.
 */
export function keepAside(directory: string, data: DataBytes, damage: Damage): boolean {
  const path = join(directory, keptAsideName(damage));
  if (existsSync(path)) return false;
  if (!existsSync(directory)) {
    mkdirSync(directory, { recursive: true });
    syncDirectory(dirname(directory));
  }
  const unfinished = `${path}.new`;
  const fd = openSync(unfinished, 'w', 0o660);
  try {
    // In pieces: an index entry may name a length that no record has.
    for (let done = 0; done < damage.lengthBytes; done += PIECE_BYTES) {
      const length = Math.min(PIECE_BYTES, damage.lengthBytes - done);
      const { bytes, at } = data.place(damage.offset + done, length);
      writeSync(fd, bytes, at, length, done);
    }
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(unfinished, path);
  syncDirectory(directory);
  return true;
}

/** Names of all records that were ever kept aside in this pair. */
export const keptAsideNames = (directory: string): string[] =>
  existsSync(directory)
    ? readdirSync(directory)
        .filter((name) => name.endsWith('.record'))
        .sort()
    : [];
