import { dirname, join } from 'node:path';
import type { DataBytes } from '../platform/data-map.js';
import { syncDirectory } from '../platform/directory.js';
import type { Kernel } from '../platform/kernel.js';
import type { Damage } from './plan.js';

const COPY_CHUNK_BYTES = 256;

/** The name says which message it was and where it stood, so that keeping it twice is keeping it once. */
export const keptAsideName = (damage: Damage): string => `${damage.number}@${damage.offset}.record`;

/**
 * Copies what is left of a damaged record into a file of its own, on the disk when this returns: it is named, never
 * delivered and never silently dropped.
 *
 * @returns true when it was not kept already.
 */
export function keepAside(kernel: Kernel, directory: string, data: DataBytes, damage: Damage): boolean {
  const path = join(directory, keptAsideName(damage));
  const isKept = kernel.exists(path);
  if (!kernel.exists(directory)) kernel.makeDirectory(directory);
  if (!isKept) copyInto(kernel, path, data, damage);
  // Also of what is there already: whoever made it may have been killed before its name was on the disk.
  syncDirectory(directory, kernel);
  syncDirectory(dirname(directory), kernel);
  return !isKept;
}

/** Under another name until all of it is on the disk. */
function copyInto(kernel: Kernel, path: string, data: DataBytes, damage: Damage): void {
  const temporaryPath = `${path}.new`;
  const fd = kernel.open(temporaryPath, 'w', 0o660);
  try {
    // In pieces: an index entry may name a length that no record has.
    for (let done = 0; done < damage.lengthBytes; done += COPY_CHUNK_BYTES) {
      const length = Math.min(COPY_CHUNK_BYTES, damage.lengthBytes - done);
      const { bytes, at } = data.locate(damage.offset + done, length);
      kernel.write(fd, bytes, at, length, done);
    }
    kernel.fsync(fd);
  } finally {
    kernel.close(fd);
  }
  kernel.rename(temporaryPath, path);
}

/** Names of all records that were ever kept aside in this pair. */
export const keptAsideNames = (kernel: Kernel, directory: string): string[] =>
  kernel.exists(directory)
    ? kernel
        .list(directory)
        .filter((name) => name.endsWith('.record'))
        .sort()
    : [];
