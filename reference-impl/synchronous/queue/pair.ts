import { DataMap } from '../../common/platform/data-map.js';
import { syncDirectory } from '../../common/platform/directory.js';
import { isMutexHeld, QueueError } from '../../common/platform/errors.js';
import type { Kernel } from '../../common/platform/kernel.js';
import { LockFile } from '../../common/platform/locks.js';
import { PAGE_BYTES } from '../../common/platform/map.js';
import type { ChecksumKey } from '../../common/record/checksum.js';
import type { IndexImage } from '../index/image.js';
import { beginIndexSync, endIndexSync } from '../index/index-file.js';
import { ENTRY, FIELD, STATUS } from '../index/layout.js';
import { LOCK } from '../index/lock-bytes.js';
import { RING_START } from '../record/data-file.js';
import type { Ring } from '../ring/reserve.js';
import { readDataFileHeader } from './install.js';
import { attachIndex, type PairParts, type RestoreReport, restorePair } from './pair-restore.js';
import { type PairDirectories, pairPaths } from './paths.js';
import { hostPlatform, type Platform } from './platform.js';
import { lockOrThrow } from './snapshot.js';

/**
 * Longest time, in milliseconds, that a worker waits for the mutex. A process that holds it longer is
 * stopped, or reads the whole queue (verify.ts).
 */
const MUTEX_TIMEOUT_MS = 5000;

/** Geometry of the index file that replaces a lost one. */
export interface PairOptions {
  entries: number;
  workerSlots: number;
  /** Number of attempts that a restore gives to every message when the index is lost; default 0. */
  retryCountWithoutIndex?: number;
  /**
   * Requires that no other process has the pair open, so that the restore is done here. `set-index-aside` also
   * renames the index to `queue.index.old` first, so that the restore only names by it what the data file has lost.
   */
  rebuild?: 'with-index' | 'set-index-aside';
}

const geometryOf = ({ entries, workerSlots }: PairOptions, dataBytes: number) => ({
  entries,
  workerSlots,
  dataBytes,
});

/** The open parts of a pair, which `Pair.open` passes to the constructor. */
interface OpenedPair {
  locks: LockFile;
  dataFd: number;
  indexFd: number;
  image: IndexImage;
  report: RestoreReport | undefined;
}

/** One data file and its index file, open in this process (patent [0022]). */
export class Pair {
  readonly kernel: Kernel;
  readonly directories: PairDirectories;
  readonly data: DataMap;
  readonly image: IndexImage;
  readonly locks: LockFile;
  readonly key: ChecksumKey;
  /** Identity of the data file. */
  readonly queueId: string;
  readonly ring: Ring;
  readonly maxRecordBytes: number;
  /** Report of the restore, if this process opened the pair first and restored it. */
  readonly restore: RestoreReport | undefined;
  readonly #dataFd: number;
  readonly #indexFd: number;
  /**
   * Value that this process stores as the owner of the mutex: its slot + 1, or 0xffff while the process has
   * no slot.
   */
  #mutexOwner = 0xffff;
  /** Whether the last wait for the mutex timed out. */
  #hasMutexTimedOut = false;
  /** Changes that wait for the mutex, in the order of the calls. */
  #deferredChanges: (() => void)[] = [];

  /**
   * Opens a pair. The first process to open it restores it. The others wait for the restore and then trust
   * the index in memory: the mutex and the undo log keep it whole even when a process is killed during a
   * change.
   *
   * @throws QueueError `not-a-queue`, `wrong-version` or `damaged-queue` when the files are not usable;
   * `sync-failed` when the restore cannot write to the disk; `mutex-held` when another process does not
   * finish opening the pair, for example because it is stopped; `queue-in-use` for `rebuild` when another
   * process has the pair open.
   */
  static open(directories: PairDirectories, options: PairOptions, platform: Platform = hostPlatform): Pair {
    const { kernel } = platform;
    const paths = pairPaths(directories);
    const head = readDataFileHeader(paths.data, kernel);
    const dataFd = openDataFile(paths.data, head.sizeBytes, kernel);
    const parts: PairParts = {
      platform,
      directories,
      key: head.key,
      maxRecordBytes: head.maxRecordBytes,
      ring: { start: RING_START, end: head.sizeBytes - PAGE_BYTES },
      data: new DataMap(dataFd, head.sizeBytes, head.maxRecordBytes, kernel),
    };
    const locks = new LockFile(paths.lock, kernel);
    try {
      lockOrThrow(locks, LOCK.opening, directories.directory, head.sizeBytes);
      const isFirst = locks.tryLock(LOCK.users);
      let setAside: string | undefined;
      if (options.rebuild !== undefined) {
        if (!isFirst) throw inUseError(directories);
        // Only now: without the lock another process could open the pair between the rename and the restore.
        if (options.rebuild === 'set-index-aside') setAside = setIndexAside(directories, kernel);
      }
      const opened = isFirst
        ? restorePair(parts, geometryOf(options, head.sizeBytes), head.queueId, {
            retryCountWithoutIndex: options.retryCountWithoutIndex,
            setAside,
          })
        : { ...attachIndex(parts, head.queueId, head.sizeBytes), report: undefined };
      locks.lockShared(LOCK.users);
      locks.unlock(LOCK.opening);
      const { image, fd, report } = opened;
      return new Pair(parts, { locks, dataFd, indexFd: fd, image, report }, head.queueId);
    } catch (failure) {
      // Release the locks too: if this process tries again, it must restore the pair, and not trust a
      // half-done restore.
      locks.close();
      kernel.close(dataFd);
      throw failure;
    }
  }

  private constructor(parts: PairParts, opened: OpenedPair, queueId: string) {
    this.kernel = parts.platform.kernel;
    this.directories = parts.directories;
    this.data = parts.data;
    this.key = parts.key;
    this.ring = parts.ring;
    this.maxRecordBytes = parts.maxRecordBytes;
    this.queueId = queueId;
    this.locks = opened.locks;
    this.image = opened.image;
    this.restore = opened.report;
    this.#dataFd = opened.dataFd;
    this.#indexFd = opened.indexFd;
  }

  /** Logs the restore if it found a lost index, damaged records, or messages that may be delivered twice. */
  logRestore(): void {
    const { directories, restore, kernel } = this;
    if (!restore) return;
    const { indexProblem, uncertain, damaged } = restore;
    if (indexProblem === null && uncertain === 0 && damaged.length === 0) return;
    logEvent(kernel, 'restored', { directory: directories.directory, ...restore });
  }

  /** Sets the worker slot that this process stores as the owner of the mutex from now on. */
  setMutexOwner(slot: number): void {
    this.#mutexOwner = slot + 1;
  }

  /**
   * Runs `change` while this process holds the mutex (patent [0018]). If the last owner died during a change,
   * that change is undone first. Then the deferred changes of this process are made, and then `change` runs.
   *
   * @throws QueueError `mutex-held` when another process holds the mutex for too long. Nothing was changed. The
   * wait is bounded because it blocks the thread. Until the mutex is free again, further calls fail without a
   * wait.
   */
  withMutex<T>(change: () => T): T {
    const { image, locks } = this;
    this.#lockMutex();
    try {
      if (image.get(FIELD.mutexOwner) !== 0) image.rollBack();
      image.put(FIELD.mutexOwner, this.#mutexOwner);
      for (const deferred of this.#deferredChanges.splice(0)) deferred();
      return change();
    } catch (error) {
      image.rollBack();
      throw error;
    } finally {
      image.put(FIELD.mutexOwner, 0);
      locks.unlock(LOCK.mutex);
    }
  }

  /** Takes the mutex. Logs when the wait times out, and when the mutex is free again after that. */
  #lockMutex(): void {
    const { directory } = this.directories;
    if (this.locks.lockWithin(LOCK.mutex, this.#hasMutexTimedOut ? 0 : MUTEX_TIMEOUT_MS)) {
      if (this.#hasMutexTimedOut) logEvent(this.kernel, 'mutex-free', { directory });
      this.#hasMutexTimedOut = false;
      return;
    }
    const slot = this.image.get(FIELD.mutexOwner) - 1;
    if (!this.#hasMutexTimedOut)
      logEvent(this.kernel, 'mutex-held', { directory, slot, forMs: MUTEX_TIMEOUT_MS });
    this.#hasMutexTimedOut = true;
    throw new QueueError('mutex-held', `another process holds the mutex of ${directory}: is it stopped?`);
  }

  /**
   * Runs a change that must not be dropped while this process holds the mutex. If another process holds the
   * mutex for too long, the change is deferred until this process next takes the mutex.
   */
  withMutexEventually(change: () => void): void {
    this.#deferredChanges.push(change);
    try {
      this.withMutex(() => undefined);
    } catch (error) {
      if (!isMutexHeld(error)) throw error;
    }
  }

  /**
   * Makes every page of every unconfirmed record dirty again. Call it after a failed msync: the kernel then
   * treats the pages as clean, also those of records that another worker has copied and not yet requested to
   * sync. The next msync would write nothing, and its success would confirm messages that are not on the
   * disk.
   */
  redirtyUnconfirmed(): void {
    try {
      this.withMutex(() => this.#redirtyReserved());
    } catch (error) {
      if (!isMutexHeld(error)) throw error;
      // Without the mutex the list of unconfirmed records cannot be read, so make all pages dirty.
      this.data.redirty(this.ring.start, this.ring.end - this.ring.start);
    }
  }

  #redirtyReserved(): void {
    const { data, image } = this;
    for (let entry = 0; entry < image.geometry.entries; entry += 1) {
      const at = image.entryWord(entry);
      if (image.get(at + ENTRY.status) !== STATUS.reserved) continue;
      data.redirty(image.getWide(at + ENTRY.offset), image.get(at + ENTRY.length));
    }
  }

  /**
   * Writes the index to the disk while other processes use it (patent [0018]). The sync covers all changes up
   * to a time and a message number. Both are read before the first sync, stored in the index when it is
   * complete, and then synced themselves. So `lastSync` on the disk never claims more than what is on the disk,
   * whichever pages the kernel writes in between.
   *
   * @throws QueueError `mutex-held` when another process holds the mutex for too long.
   * @throws the error of fdatasync(2) when the disk fails.
   */
  async syncIndex(): Promise<void> {
    const { image, kernel } = this;
    const startedMs = kernel.wallClockMs();
    const number = this.withMutex(() => image.getWide(FIELD.nextNumber));
    await this.#writeIndex();
    this.withMutex(() => {
      image.putWide(FIELD.lastSync, startedMs);
      image.putWide(FIELD.lastSyncNumber, number);
    });
    await this.#writeIndex();
  }

  async #writeIndex(): Promise<void> {
    beginIndexSync(this.image, this.kernel);
    await this.kernel.fdatasync(this.#indexFd);
    endIndexSync(this.image);
  }

  /** Releases the locks and closes the files. The mappings stay until the process ends. */
  close(): void {
    this.locks.close();
    this.kernel.close(this.#dataFd);
    this.kernel.close(this.#indexFd);
  }
}

/** The error of a rebuild of a pair that another process has open. */
export const inUseError = ({ directory }: PairDirectories): QueueError =>
  new QueueError('queue-in-use', `${directory} is in use: stop its workers and helper first`);

/**
 * Renames the index. The new name is on the disk when this returns.
 * @returns the new path; undefined without an index.
 */
function setIndexAside(directories: PairDirectories, kernel: Kernel): string | undefined {
  const { index } = pairPaths(directories);
  if (!kernel.exists(index)) return undefined;
  const aside = `${index}.old`;
  kernel.rename(index, aside);
  syncDirectory(directories.indexDirectory, kernel);
  return aside;
}

/**
 * Opens the data file for mapping.
 * @throws QueueError `damaged-queue` when the file does not have the size that its head names.
 */
function openDataFile(path: string, sizeBytes: number, kernel: Kernel): number {
  const fd = kernel.open(path, 'r+');
  const actualBytes = kernel.sizeBytes(fd);
  if (actualBytes === sizeBytes) return fd;
  kernel.close(fd);
  throw new QueueError(
    'damaged-queue',
    `${path} has ${actualBytes} bytes, expected ${sizeBytes}: a file that was cut cannot be mapped`,
  );
}

/** Writes one line of JSON for the operator to stderr. */
export function logEvent(kernel: Kernel, event: string, fields: object): void {
  kernel.log(JSON.stringify({ event, ...fields }));
}
