import type { IndexImage } from '../index/image.js';
import { beginIndexSync, endIndexSync } from '../index/index-file.js';
import { ENTRY, FIELD, STATUS } from '../index/layout.js';
import { DataMap } from '../platform/data-map.js';
import { isMutexHeld, QueueError } from '../platform/errors.js';
import type { Kernel } from '../platform/kernel.js';
import { LOCK, LockFile } from '../platform/locks.js';
import { PAGE_BYTES } from '../platform/map.js';
import type { ChecksumKey } from '../record/checksum.js';
import { RING_START } from '../record/data-file.js';
import type { Ring } from '../ring/reserve.js';
import { readDataFileHeader } from './install.js';
import { attachIndex, type PairParts, type RestoreReport, restorePair } from './pair-restore.js';
import { type PairDirectories, pairPaths } from './paths.js';
import { hostPlatform, type Platform } from './platform.js';
import { lockOrThrow } from './snapshot.js';

/** So long a worker waits for the mutex; who holds it longer is stopped, or reads the whole queue (verify.ts). */
const MUTEX_TIMEOUT_MS = 5000;

export interface PairOptions {
  /** Entries and slots that a new index file gets if the old one is lost. */
  entries: number;
  workerSlots: number;
}

/** What `Pair.open` has opened. */
interface OpenedPair {
  locks: LockFile;
  dataFd: number;
  indexFd: number;
  image: IndexImage;
  report: RestoreReport | undefined;
}

/** One data file and its index file, open in this process [0022]. */
export class Pair {
  readonly kernel: Kernel;
  readonly directories: PairDirectories;
  readonly data: DataMap;
  readonly image: IndexImage;
  readonly locks: LockFile;
  readonly key: ChecksumKey;
  readonly ring: Ring;
  readonly maxRecordBytes: number;
  /** Present when this process was the first to open the pair and restored it. */
  readonly restore: RestoreReport | undefined;
  readonly #dataFd: number;
  readonly #indexFd: number;
  #mutexOwner = 0xffff;
  /** Was the last wait for the mutex in vain? */
  #hasMutexTimedOut = false;
  /** Changes that wait for the mutex, in order. */
  #deferredChanges: (() => void)[] = [];

  /**
   * Opens a pair. The first process to do so restores it; the others wait for that and then trust the index in
   * memory, which the mutex keeps whole even when its owners are killed.
   *
   * @throws QueueError `not-a-queue`, `wrong-version`, `damaged-queue`; `mutex-held` when another process opens the pair and
   * does not come to an end: it is stopped.
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
      ring: { start: RING_START, end: head.sizeBytes - PAGE_BYTES },
      data: new DataMap(dataFd, head.sizeBytes, head.maxRecordBytes, kernel),
    };
    const locks = new LockFile(paths.lock, kernel);
    try {
      lockOrThrow(locks, LOCK.opening, directories.directory, head.sizeBytes);
      const isFirst = locks.tryLock(LOCK.users);
      const opened = isFirst
        ? restorePair(parts, { ...options, dataBytes: head.sizeBytes }, head.queueId)
        : { ...attachIndex(parts, head.queueId, head.sizeBytes), report: undefined };
      locks.lockShared(LOCK.users);
      locks.unlock(LOCK.opening);
      const { image, fd, report } = opened;
      return new Pair(parts, { locks, dataFd, indexFd: fd, image, report }, head.maxRecordBytes);
    } catch (failure) {
      // With the locks: a process that goes on and tries again must restore, not trust what is half restored.
      locks.close();
      kernel.close(dataFd);
      throw failure;
    }
  }

  private constructor(parts: PairParts, opened: OpenedPair, maxRecordBytes: number) {
    this.kernel = parts.platform.kernel;
    this.directories = parts.directories;
    this.data = parts.data;
    this.key = parts.key;
    this.ring = parts.ring;
    this.maxRecordBytes = maxRecordBytes;
    this.locks = opened.locks;
    this.image = opened.image;
    this.restore = opened.report;
    this.#dataFd = opened.dataFd;
    this.#indexFd = opened.indexFd;
  }

  /** Tells what a restore found that was not as it should be: a lost index, damaged records, messages that may come twice. */
  logRestore(): void {
    const { directories, restore, kernel } = this;
    if (!restore) return;
    const { indexWas, uncertain, damaged } = restore;
    if (indexWas === null && uncertain === 0 && damaged.length === 0) return;
    logEvent(kernel, 'restored', { directory: directories.directory, ...restore });
  }

  /** From now on this process signs the mutex with its worker slot. */
  setMutexOwner(slot: number): void {
    this.#mutexOwner = slot + 1;
  }

  /**
   * Runs `change` alone [0018]. Whoever finds that the last owner died in the middle first takes its half-made change
   * back. What this process owes to the lists is done first.
   *
   * @throws QueueError `mutex-held` when another process holds it for too long: nothing was done, and the thread, which can
   * do nothing else meanwhile, has its time back. Until it is free again that is told without a wait.
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

  /** The same for a change that cannot be given up: when the mutex is held for too long it is done as soon as it is free. */
  withMutexEventually(change: () => void): void {
    this.#deferredChanges.push(change);
    try {
      this.withMutex(() => undefined);
    } catch (error) {
      if (!isMutexHeld(error)) throw error;
    }
  }

  /**
   * After a failed msync the kernel takes the pages for clean, also those of records that another worker has copied and
   * not yet asked about: the next msync would have nothing to write, and its success would be a confirmation of
   * nothing. So every page of every record that is not confirmed yet is made dirty again.
   */
  redirtyUnconfirmed(): void {
    try {
      this.withMutex(() => this.#redirtyReserved());
    } catch (error) {
      if (!isMutexHeld(error)) throw error;
      // Which records those are cannot be told now, so it is done to all pages.
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
   * Writes the index to the disk without stopping anybody [0018]. Two phases: the time and the message number that the
   * sync vouches for are noted before it, and stored when it is complete, so that `last_sync` is never ahead of
   * what it vouches for, whichever pages the kernel writes in between.
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

  /** The maps stay until the process ends; locks and files are given back now. */
  close(): void {
    this.locks.close();
    this.kernel.close(this.#dataFd);
    this.kernel.close(this.#indexFd);
  }
}

/** @throws QueueError damaged-queue when the file does not have the size that its head names. */
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

/** One JSON line for the operator on stderr; the queue goes on. */
export function logEvent(kernel: Kernel, event: string, fields: object): void {
  kernel.log(JSON.stringify({ event, ...fields }));
}
