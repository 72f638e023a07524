import { createRequire } from 'node:module';
import { assert, QueueError } from '../errors.js';
import { errno, isMapFailed, madvise, mmapWide, msyncWide, viewAt } from './native.js';

export const PAGE_BYTES = 4096;

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MADV_RANDOM = 1;
const MADV_WILLNEED = 3;
const MS_SYNC = 4;
const INT32_MAX = 2 ** 31 - 1;

/** What of mmap-io is used; its own types leave out the blocking flag's meaning. */
interface MmapIo {
  map(size: number, protection: number, flags: number, fd: number, offset: number, advice: number): Buffer;
  advise(buffer: Buffer, offset: number, length: number, advice: number): void;
  sync(buffer: Buffer, offset: number, length: number, blocking: boolean, invalidate: boolean): void;
}

/**
 * mmap-io is compiled on the user's machine; where there is no compiler the same calls go through koffi, which
 * comes as a binary. Both map the same pages, and a process may use either.
 */
const mmapIo: MmapIo | undefined = (() => {
  try {
    return createRequire(import.meta.url)('mmap-io') as MmapIo;
  } catch {
    return undefined;
  }
})();

/** Which library maps files on this machine, for `doctor` and bug reports. */
export const mapLibrary: 'mmap-io' | 'koffi' = mmapIo ? 'mmap-io' : 'koffi';

/**
 * Maps `length` bytes of a file at `offset`, shared and writable. This is the only place that maps memory.
 *
 * MADV_RANDOM is set before first touch: with read-ahead the page cache holds large folios, one store dirties
 * all of one, and every msync writes up to 1 MiB.
 *
 * A mapping is never undone (neither library can without risking a crash on a later access); a process maps each
 * file once. A file that is shrunk under a mapping kills the process with SIGBUS, so sizes are checked first.
 *
 * @throws QueueError `unsupported` when the kernel refuses.
 */
export function mapShared(fd: number, offset: number, length: number): Buffer {
  assert(offset % PAGE_BYTES === 0, 'mappings start on a page boundary');
  assert(length > 0, 'mappings are not empty');
  if (mmapIo && offset <= INT32_MAX && length <= INT32_MAX) {
    try {
      return mmapIo.map(length, PROT_READ_WRITE, MAP_SHARED, fd, offset, MADV_RANDOM);
    } catch (cause) {
      throw new QueueError('unsupported', `cannot map ${length} bytes: ${(cause as Error).message}`, {
        cause,
      });
    }
  }
  const pointer = mmapWide(null, length, PROT_READ_WRITE, MAP_SHARED, fd, offset);
  if (isMapFailed(pointer)) {
    throw new QueueError('unsupported', `cannot map ${length} bytes at ${offset}: errno ${errno()}`);
  }
  madvise(pointer, length, MADV_RANDOM);
  return Buffer.from(viewAt(pointer, length));
}

/** The kernel reads no more than this for one request to read ahead (read_ahead_kb of most devices), and forgets the rest. */
const READ_AHEAD_STEP_BYTES = 128 * 1024;

/** Asks the kernel to read part of a mapping ahead, in pages and not in large folios. A hint: failure is no matter. */
export function adviseWillNeed(map: Buffer, offset: number, length: number): void {
  const start = Math.floor(offset / PAGE_BYTES) * PAGE_BYTES;
  const end = Math.min(map.length, offset + length);
  if (end <= start) return;
  for (let at = start; at < end; at += READ_AHEAD_STEP_BYTES) {
    adviseStep(map, at, Math.min(READ_AHEAD_STEP_BYTES, end - at));
  }
}

function adviseStep(map: Buffer, offset: number, length: number): void {
  if (!mmapIo) {
    madvise(map.subarray(offset, offset + length), length, MADV_WILLNEED);
    return;
  }
  try {
    mmapIo.advise(map, offset, length, MADV_WILLNEED);
  } catch {
    // Only speed depends on it.
  }
}

/**
 * msync(2) with MS_SYNC over the pages that hold `length` bytes at `offset` of a mapping: returns when they are on
 * the disk. Blocks the thread. Every argument is spelled out because mmap-io's defaults mean MS_ASYNC, which
 * leaves nothing on the disk.
 *
 * @returns 0, or the errno of the failure (EIO, ENOSPC, …).
 */
export function syncMapped(map: Buffer, offset: number, length: number): number {
  assert(offset >= 0 && length > 0 && offset + length <= map.length, 'msync stays within its mapping');
  const start = Math.floor(offset / PAGE_BYTES) * PAGE_BYTES;
  const end = Math.min(map.length, Math.ceil((offset + length) / PAGE_BYTES) * PAGE_BYTES);
  if (!mmapIo) {
    return msyncWide(map.subarray(start, end), end - start, MS_SYNC) === 0 ? 0 : errno();
  }
  try {
    mmapIo.sync(map, start, end - start, true, false);
    return 0;
  } catch (error) {
    // The library's errors carry the errno only at the end of their text: "msync() failed, 5".
    const text = /(\d+)$/.exec((error as Error).message);
    return text ? Number(text[1]) : 5;
  }
}
