import { makeDirectories, syncDirectory } from '../../common/platform/directory.js';
import { QueueError } from '../../common/platform/errors.js';
import { FILE_MODE, type Kernel } from '../../common/platform/kernel.js';
import { linux } from '../../common/platform/linux.js';
import { PAGE_BYTES } from '../../common/platform/map.js';
import { emptyIndex } from '../index/index-file.js';
import { type Geometry, indexBytes } from '../index/layout.js';
import {
  decodeDataFileHeader,
  encodeDataFileHeader,
  newDataFileHeader,
  RING_START,
} from '../record/data-file.js';
import type { QueueSettings } from '../settings/settings.js';
import { NOTE_ROOM_BYTES } from './dead-note.js';
import { type PairDirectories, pairPaths } from './paths.js';

/** Sizes of a pair, fixed when it is installed. */
export interface PairGeometry {
  /** Size of the data file. */
  dataBytes: number;
  /** Number of index entries. */
  entries: number;
  workerSlots: number;
  /** Size of the largest record, checksums included. */
  maxRecordBytes: number;
}

/**
 * Creates the files of every data/index pair and of the dead-letter queue at their full and final size, and
 * writes all their blocks (patent [0018, 0022]). With unwritten extents, the first msync of every page would
 * cost a journal commit. When it returns, the files and their directories are on the disk.
 *
 * @throws QueueError `queue-exists` when one of the pairs already exists, in which case no file is touched;
 * `no-space-on-disk` when the disk is too small, in which case the new files are removed.
 */
export async function installQueue(settings: QueueSettings, kernel: Kernel = linux): Promise<void> {
  const pairs: [PairDirectories, PairGeometry][] = settings.pairs.map((pair) => [pair, settings]);
  const dead = { directory: settings.deadLetter.directory, indexDirectory: settings.deadLetter.directory };
  // A dead letter is a record with a note. Give the largest one room for it, as far as the file allows.
  const maxRecordBytes = Math.max(
    settings.maxRecordBytes,
    Math.min(settings.maxRecordBytes + NOTE_ROOM_BYTES, settings.deadLetter.dataBytes / 2 - PAGE_BYTES),
  );
  pairs.push([dead, { ...settings, ...settings.deadLetter, maxRecordBytes }]);
  for (const [pair] of pairs) {
    const { data } = pairPaths(pair);
    if (kernel.exists(data))
      throw new QueueError(
        'queue-exists',
        `${data} is there already; it was not touched. If it is left over from an install that was cut short, remove it`,
      );
  }
  try {
    for (const [pair, geometry] of pairs) installPair(kernel, pair, geometry);
  } catch (failure) {
    // Remove all pairs, also the complete ones: a queue is all its pairs or none. They hold no message yet.
    for (const [pair] of pairs) {
      const { data, index } = pairPaths(pair);
      for (const path of [data, index]) kernel.remove(path);
    }
    throw failure;
  }
}

/**
 * Creates one pair. The data file gets its name only when all of it is on the disk, so that a crash cannot
 * leave an incomplete file that looks like a queue.
 */
function installPair(kernel: Kernel, pair: PairDirectories, geometry: PairGeometry): void {
  makeDirectories(kernel, pair.directory);
  makeDirectories(kernel, pair.indexDirectory);
  const paths = pairPaths(pair);
  const head = newDataFileHeader(geometry.dataBytes, geometry.maxRecordBytes, kernel);
  createIndex(kernel, paths.index, geometry, head.queueId);
  const page = encodeDataFileHeader(head);
  const lastPage = geometry.dataBytes / PAGE_BYTES - 1;
  const temporaryPath = `${paths.data}.new`;
  createFilledFile(kernel, temporaryPath, geometry.dataBytes, (at) =>
    at === 0 || at === lastPage ? page : undefined,
  );
  kernel.rename(temporaryPath, paths.data);
  syncDirectory(pair.directory, kernel);
  syncDirectory(pair.indexDirectory, kernel);
}

/**
 * Creates an empty index file at its full size. When it returns, the file is on the disk; its name may not
 * be.
 */
export function createIndex(kernel: Kernel, path: string, geometry: Geometry, queueId: string): void {
  const front = emptyIndex(geometry, queueId, RING_START);
  createFilledFile(kernel, path, indexBytes(geometry), (page) => {
    const at = page * PAGE_BYTES;
    return at < front.length ? front.subarray(at, at + PAGE_BYTES) : undefined;
  });
}

/**
 * Creates a file page by page, with zeros where `pageAt` returns undefined. It writes 4 KiB at a time: after
 * larger writes the page cache holds large folios. One store then makes a whole folio dirty, and every msync
 * writes far too much.
 */
function createFilledFile(
  kernel: Kernel,
  path: string,
  sizeBytes: number,
  pageAt: (page: number) => Buffer | undefined,
): void {
  const zeros = Buffer.alloc(PAGE_BYTES);
  let fd: number | undefined;
  try {
    fd = kernel.open(path, 'w', FILE_MODE);
    for (let page = 0; page * PAGE_BYTES < sizeBytes; page += 1) {
      const bytes = pageAt(page) ?? zeros;
      const length = Math.min(bytes.length, PAGE_BYTES);
      if (kernel.write(fd, bytes, 0, length, page * PAGE_BYTES) !== length)
        throw noSpaceError(path, sizeBytes);
      if (length < PAGE_BYTES) kernel.write(fd, zeros, 0, PAGE_BYTES - length, page * PAGE_BYTES + length);
    }
    kernel.fsync(fd);
  } catch (cause) {
    kernel.remove(path);
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'ENOSPC' || code === 'EDQUOT') throw noSpaceError(path, sizeBytes, cause);
    throw cause;
  } finally {
    if (fd !== undefined) kernel.close(fd);
  }
}

const noSpaceError = (path: string, sizeBytes: number, cause?: unknown): QueueError =>
  new QueueError('no-space-on-disk', `no room on the disk for ${path}: expected ${sizeBytes} free bytes`, {
    cause,
  });

/**
 * Reads the head of a data file. If the head is damaged, it reads the copy in the last page.
 * @throws QueueError `not-a-queue` when the file is missing or is not a data file; `wrong-version` when it
 * has another version; `damaged-queue` when both copies of the head are damaged.
 */
export function readDataFileHeader(
  path: string,
  kernel: Kernel = linux,
): ReturnType<typeof decodeDataFileHeader> {
  if (!kernel.exists(path)) {
    throw new QueueError(
      'not-a-queue',
      `${path} is not there: expected an installed queue (command install)`,
    );
  }
  const first = readPage(kernel, path, 0);
  try {
    return decodeDataFileHeader(first.page, path);
  } catch (error) {
    if ((error as QueueError).code === 'wrong-version' || first.fileBytes < 2 * PAGE_BYTES) throw error;
    try {
      return decodeDataFileHeader(readPage(kernel, path, first.fileBytes - PAGE_BYTES).page, path);
    } catch {
      throw error;
    }
  }
}

/** Reads the first page of a file. A missing file counts as an empty one. */
export function readFirstPage(kernel: Kernel, path: string): { page: Buffer; fileBytes: number } {
  try {
    return readPage(kernel, path, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { page: Buffer.alloc(0), fileBytes: 0 };
    throw error;
  }
}

/** Reads the page at byte `at`, which is shorter at the end of the file, and the size of the file. */
export function readPage(kernel: Kernel, path: string, at: number): { page: Buffer; fileBytes: number } {
  const fd = kernel.open(path, 'r');
  try {
    const page = Buffer.alloc(PAGE_BYTES);
    const length = kernel.read(fd, page, 0, PAGE_BYTES, at);
    return { page: page.subarray(0, length), fileBytes: kernel.sizeBytes(fd) };
  } finally {
    kernel.close(fd);
  }
}
