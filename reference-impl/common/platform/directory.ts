import { constants } from 'node:fs';
import type { Kernel } from './kernel.js';
import { linux } from './linux.js';

/**
 * Syncs a directory to the disk. Without this a file that was just made or renamed in it could be missing
 * after a power cut, although its data is on the disk.
 */
export function syncDirectory(path: string, kernel: Kernel = linux): void {
  const fd = kernel.open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    kernel.fsync(fd);
  } finally {
    kernel.close(fd);
  }
}
