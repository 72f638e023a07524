import { assert } from './errors.js';
import type { Kernel } from './kernel.js';

/** Size of a memory page, in bytes. */
export const PAGE_BYTES = 4096;

/**
 * Maps `length` bytes of a file at `offset`, shared and writable.
 *
 * A process maps each file once and never unmaps it, except in `withTemporaryMaps`, because neither library
 * can unmap without the risk of a crash at a later access. An access beyond the end of a file that was shrunk
 * after it was mapped kills the process with SIGBUS, so sizes are checked first.
 *
 * @throws QueueError `unsupported` when the kernel refuses.
 */
export function mapShared(kernel: Kernel, fd: number, offset: number, length: number): Buffer {
  assert(offset % PAGE_BYTES === 0, 'mappings start on a page boundary');
  assert(length > 0, 'mappings are not empty');
  return kernel.map(fd, offset, length);
}

/**
 * Upper bound of the bytes that the kernel reads for one read-ahead request (read_ahead_kb of most devices).
 * The kernel ignores the rest of a longer request.
 */
const READ_AHEAD_STEP_BYTES = 128 * 1024;

/**
 * Asks the kernel to read part of a mapping ahead, in pages and not in large folios. This is only a hint;
 * failures are ignored.
 */
export function adviseWillNeed(kernel: Kernel, map: Buffer, offset: number, length: number): void {
  const start = Math.floor(offset / PAGE_BYTES) * PAGE_BYTES;
  const end = Math.min(map.length, offset + length);
  for (let at = start; at < end; at += READ_AHEAD_STEP_BYTES) {
    kernel.willNeed(map, at, Math.min(READ_AHEAD_STEP_BYTES, end - at));
  }
}

/**
 * Calls msync(2) with MS_SYNC for the pages that hold `length` bytes at `offset` of a mapping. Blocks the
 * thread until the pages are on the disk.
 *
 * @returns 0, or the errno of the failure (EIO, ENOSPC, …).
 */
export function syncMapped(kernel: Kernel, map: Buffer, offset: number, length: number): number {
  assert(offset >= 0 && length > 0 && offset + length <= map.length, 'msync stays within its mapping');
  const start = Math.floor(offset / PAGE_BYTES) * PAGE_BYTES;
  const end = Math.min(map.length, Math.ceil((offset + length) / PAGE_BYTES) * PAGE_BYTES);
  return kernel.msync(map, start, end - start, true);
}
