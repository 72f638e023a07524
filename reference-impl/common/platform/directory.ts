import { constants } from 'node:fs';
import { dirname } from 'node:path';
import { QueueError } from './errors.js';
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

/**
 * Makes a directory and its missing parents, and syncs each entry to the disk. It does not use the recursive
 * mkdir of Node, which never ends on a filesystem that refuses with ENOENT, such as /proc.
 * @throws QueueError `bad-setting` when it cannot be made.
 */
export function makeDirectories(kernel: Kernel, path: string): void {
  if (kernel.exists(path)) return;
  const parent = dirname(path);
  if (parent !== path) makeDirectories(kernel, parent);
  try {
    kernel.makeDirectory(path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return;
    throw new QueueError('bad-setting', `cannot make the directory ${path}: ${(cause as Error).message}`, {
      cause,
    });
  }
  syncDirectory(parent, kernel);
}
