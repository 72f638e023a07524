import type { Kernel } from './kernel.js';
import { linux } from './linux.js';

export function syncDirectory(path: string, kernel: Kernel = linux): void {
  const fd = kernel.open(path, 'r');
  try {
    kernel.fsync(fd);
  } finally {
    kernel.close(fd);
  }
}
