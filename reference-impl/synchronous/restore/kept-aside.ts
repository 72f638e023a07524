import { dirname, join } from 'node:path';
import type { DataBytes } from '../../common/platform/data-map.js';
import { syncDirectory } from '../../common/platform/directory.js';
import { FILE_MODE, type Kernel } from '../../common/platform/kernel.js';
import type { Damage } from './plan.js';

const COPY_CHUNK_BYTES = 256;

/**
 * Returns the name of the file that a damaged record is copied into. The name contains the message number and
 * the offset, so that saving a record twice makes one file.
 */
export const keptAsideName = (damage: Damage): string => `${damage.number}@${damage.offset}.record`;

/**
 * Saves the bytes of a damaged record in a separate file, which is on the disk when this returns. A damaged
 * record is never delivered and never silently dropped.
 *
 * @param directory directory of the saved records; it is made if it does not exist.
 * @returns true when the record was not saved before.
 */
export function keepAside(kernel: Kernel, directory: string, data: DataBytes, damage: Damage): boolean {
  const path = join(directory, keptAsideName(damage));
  const isKept = kernel.exists(path);
  if (!kernel.exists(directory)) kernel.makeDirectory(directory);
  if (!isKept) copyInto(kernel, path, data, damage);
  // Sync an existing file's name too: the process that made the file may have been killed before the name was
  // on the disk.
  syncDirectory(directory, kernel);
  syncDirectory(dirname(directory), kernel);
  return !isKept;
}

/** Copies the record into a temporary file, and renames the file when all of its bytes are on the disk. */
function copyInto(kernel: Kernel, path: string, data: DataBytes, damage: Damage): void {
  const temporaryPath = `${path}.new`;
  const fd = kernel.open(temporaryPath, 'w', FILE_MODE);
  try {
    // Copy in chunks: the length of a damaged index entry may be larger than that of any record.
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

/** Returns the names of all damaged records that were ever saved in this directory. */
export const keptAsideNames = (kernel: Kernel, directory: string): string[] =>
  kernel.exists(directory)
    ? kernel
        .list(directory)
        .filter((name) => name.endsWith('.record'))
        .sort()
    : [];
