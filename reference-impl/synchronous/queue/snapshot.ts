import { DataMap } from '../../common/platform/data-map.js';
import { QueueError } from '../../common/platform/errors.js';
import type { Kernel } from '../../common/platform/kernel.js';
import { linux } from '../../common/platform/linux.js';
import { LockFile } from '../../common/platform/locks.js';
import { mapShared, PAGE_BYTES } from '../../common/platform/map.js';
import type { ChecksumKey } from '../../common/record/checksum.js';
import { IndexImage } from '../index/image.js';
import { decodeIndexHeader } from '../index/index-file.js';
import { FIELD } from '../index/layout.js';
import { LOCK } from '../index/lock-bytes.js';
import { RING_START } from '../record/data-file.js';
import type { Ring } from '../ring/reserve.js';
import { readDataFileHeader, readFirstPage } from './install.js';
import { type PairDirectories, pairPaths } from './paths.js';

/** State of a pair at one moment, for programs that only inspect it. */
export interface Snapshot {
  data: DataMap;
  ring: Ring;
  key: ChecksumKey;
  /** Copy of the index. A change to it does not reach the queue. */
  image: IndexImage;
  /**
   * Whether a process had the pair open. If no process had, the pair may still need a restore after a crash.
   */
  inUse: boolean;
}

/**
 * Calls `inspect` with the state of a pair at one moment and returns its result. The pair may be in use or
 * not. No process changes the lists while `inspect` runs, and nothing is written.
 *
 * @throws QueueError `mutex-held` when another process holds the queue for too long; `damaged-queue` when
 * there is no usable index, which `rebuild` or the start of a worker makes.
 */
export function withSnapshot<T>(
  pair: PairDirectories,
  inspect: (snapshot: Snapshot) => T,
  kernel: Kernel = linux,
): T {
  const paths = pairPaths(pair);
  const head = readDataFileHeader(paths.data, kernel);
  const dataFd = kernel.open(paths.data, 'r+');
  if (kernel.sizeBytes(dataFd) !== head.sizeBytes) {
    kernel.close(dataFd);
    throw new QueueError('damaged-queue', `${paths.data}: expected ${head.sizeBytes} bytes`);
  }
  const locks = new LockFile(paths.lock, kernel);
  try {
    // With this lock no process can open the pair: a pair that is not in use stays so while it is inspected.
    lockOrThrow(locks, LOCK.opening, pair.directory, head.sizeBytes);
    const inUse = locks.isHeldElsewhere(LOCK.users);
    if (inUse) lockOrThrow(locks, LOCK.mutex, pair.directory, head.sizeBytes);
    return inspect({
      data: new DataMap(dataFd, head.sizeBytes, head.maxRecordBytes, kernel),
      ring: { start: RING_START, end: head.sizeBytes - PAGE_BYTES },
      key: head.key,
      image: copyIndex(kernel, paths.index, head.queueId, head.sizeBytes),
      inUse,
    });
  } finally {
    locks.close();
  }
}

/** Copies the index into memory, and undoes in the copy what a dead owner of the mutex left half-done. */
function copyIndex(kernel: Kernel, path: string, queueId: string, dataBytes: number): IndexImage {
  const { page, fileBytes } = readFirstPage(kernel, path);
  const head = decodeIndexHeader(page, fileBytes, queueId, dataBytes);
  if (!head.usable) throw new QueueError('damaged-queue', `${path}: ${head.why}; rebuild makes a new index`);
  const copy = new Uint8Array(mapShared(kernel, kernel.open(path, 'r+'), 0, fileBytes));
  const image = new IndexImage(copy, head.geometry);
  if (image.get(FIELD.mutexOwner) !== 0) image.rollBack();
  return image;
}

/**
 * Time in milliseconds to wait for a lock, without the time for reading the data file. Other inspections and
 * restores may take long. A stopped process would keep the lock forever.
 */
const BASE_TIMEOUT_MS = 60_000;
/**
 * Lowest speed of reading the data file that still counts as progress: 16 MiB per second. A restore reads the
 * file once.
 */
const MIN_BYTES_PER_MS = (16 * 2 ** 20) / 1000;

/**
 * Locks a byte of the lock file of a data/index pair. Blocks the thread until no other process holds the
 * byte.
 * @param dataBytes size of the data file: a process that holds the byte may have to read the whole file.
 * @throws QueueError `mutex-held` when another process holds the byte for longer than a minute plus the time
 * for reading the data file.
 */
export function lockOrThrow(locks: LockFile, byte: number, directory: string, dataBytes: number): void {
  const timeoutMs = BASE_TIMEOUT_MS + Math.ceil(dataBytes / MIN_BYTES_PER_MS);
  if (locks.lockWithin(byte, timeoutMs)) return;
  throw new QueueError(
    'mutex-held',
    `another process has held ${directory} for ${timeoutMs} ms: is it stopped?`,
  );
}
