import { IndexImage } from '../index/image.js';
import { decodeIndexHeader } from '../index/index-file.js';
import { FIELD } from '../index/layout.js';
import { DataMap } from '../platform/data-map.js';
import { QueueError } from '../platform/errors.js';
import type { Kernel } from '../platform/kernel.js';
import { linux } from '../platform/linux.js';
import { LOCK, LockFile } from '../platform/locks.js';
import { mapShared, PAGE_BYTES } from '../platform/map.js';
import type { ChecksumKey } from '../record/checksum.js';
import { RING_START } from '../record/data-file.js';
import type { Ring } from '../ring/reserve.js';
import { readDataFileHeader, readFirstPage } from './install.js';
import { type PairDirectories, pairPaths } from './paths.js';

/** A pair as it stands at one moment, for those who only look. */
export interface Snapshot {
  data: DataMap;
  ring: Ring;
  key: ChecksumKey;
  /** A copy: nothing that is done to it reaches the queue. */
  image: IndexImage;
  /** Was the queue in use? If not, the last crash may not have been restored yet. */
  inUse: boolean;
}

/**
 * Shows a pair to `look` at one moment, whether it is in use or not, and changes nothing. While `look` runs, nobody
 * changes the lists.
 *
 * @throws QueueError `mutex-held` when another process holds the queue for too long; `damaged-queue` when there is no usable index: `rebuild`, or starting a worker, makes one.
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
  // Nobody opens the queue from here on, so what is not in use stays so.
  try {
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

function copyIndex(kernel: Kernel, path: string, queueId: string, dataBytes: number): IndexImage {
  const { page, fileBytes } = readFirstPage(kernel, path);
  const head = decodeIndexHeader(page, fileBytes, queueId, dataBytes);
  if (!head.usable) throw new QueueError('damaged-queue', `${path}: ${head.why}; rebuild makes a new index`);
  const copy = new Uint8Array(mapShared(kernel, kernel.open(path, 'r+'), 0, fileBytes));
  const image = new IndexImage(copy, head.geometry);
  if (image.get(FIELD.mutexOwner) !== 0) image.rollBack();
  return image;
}

/** Others who look, and workers that restore, may take long; one that is stopped takes for ever. */
const BASE_TIMEOUT_MS = 60_000;
/** A restore reads the data file once: at less than 16 MiB a second it does not go on. */
const MIN_BYTES_PER_MS = (16 * 2 ** 20) / 1000;

/**
 * Takes a byte of a pair's lock file (blocking the thread), as soon as nobody else has it.
 * @param dataBytes size of the data file, which whoever holds the byte may have to read.
 * @throws QueueError `mutex-held` when another process holds it for a minute and the time that such a file takes.
 */
export function lockOrThrow(locks: LockFile, byte: number, directory: string, dataBytes: number): void {
  const timeoutMs = BASE_TIMEOUT_MS + Math.ceil(dataBytes / MIN_BYTES_PER_MS);
  if (locks.lockWithin(byte, timeoutMs)) return;
  throw new QueueError(
    'mutex-held',
    `another process has held ${directory} for ${timeoutMs} ms: is it stopped?`,
  );
}
