import type { IndexImage } from '../index/image.js';
import { beginIndexSync, decodeIndexHead, endIndexSync } from '../index/index-file.js';
import { ENTRY, FIELD, type Geometry, indexBytes, STATUS } from '../index/layout.js';
import { markConsumed } from '../index/marks.js';
import { DataMap } from '../platform/data-map.js';
import { syncDirectory } from '../platform/directory.js';
import { isMutexHeld, QueueError } from '../platform/errors.js';
import type { Kernel } from '../platform/kernel.js';
import { LOCK, LockFile } from '../platform/locks.js';
import { adviseWillNeed, mapShared, PAGE_BYTES } from '../platform/map.js';
import type { ChecksumKey } from '../record/checksum.js';
import { RING_START } from '../record/data-file.js';
import { generationPages, putGeneration } from '../record/generation.js';
import { applyPlan } from '../restore/apply.js';
import { keepAside } from '../restore/kept-aside.js';
import { GENERATION, planRestore, type RestorePlan } from '../restore/plan.js';
import type { Ring } from '../ring/reserve.js';
import { type Ground, machine } from './ground.js';
import { createIndex, readDataHead, readFirstPage } from './install.js';
import { type PairDirectories, pairPlaces } from './places.js';
import { waitFor } from './snapshot.js';

/** So long a worker waits for the mutex; who holds it longer is stopped, or reads the whole queue (verify.ts). */
const MUTEX_PATIENCE_MS = 5000;

/** What a restore found and did. */
export interface RestoreReport {
  /** What was wrong with the index file as a whole; null when it belongs to the data file. */
  indexWas: string | null;
  restored: number;
  consumed: number;
  /** Delivered again if they had been consumed: nothing is left that tells. */
  uncertain: number;
  unfinished: number;
  /** Names of records that were kept aside. */
  damaged: { number: number; offset: number; what: string }[];
  tookMs: number;
}

export interface PairWishes {
  /** Entries and slots that a new index file gets if the old one is lost. */
  entries: number;
  workerSlots: number;
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
  readonly #ground: Ground;
  readonly #dataFd: number;
  readonly #indexFd: number;
  #mutexName = 0xffff;
  /** Was the last wait for the mutex in vain? */
  #isShutOut = false;
  /** Changes that wait for the mutex, in order. */
  #owed: (() => void)[] = [];

  /**
   * Opens a pair. The first process to do so restores it; the others wait for that and then trust the index in
   * memory, which the mutex keeps whole even when its owners are killed.
   *
   * @throws QueueError `not-a-queue`, `wrong-version`, `damaged-queue`; `mutex-held` when another process opens the pair and
   * does not come to an end: it is stopped.
   */
  static open(directories: PairDirectories, wishes: PairWishes, ground: Ground = machine): Pair {
    return new Pair(directories, wishes, ground);
  }

  private constructor(directories: PairDirectories, wishes: PairWishes, ground: Ground) {
    const { kernel } = ground;
    this.#ground = ground;
    this.kernel = kernel;
    this.directories = directories;
    const places = pairPlaces(directories);
    const head = readDataHead(places.data, kernel);
    this.#dataFd = kernel.open(places.data, 'r+');
    const actualBytes = kernel.sizeBytes(this.#dataFd);
    if (actualBytes !== head.sizeBytes) {
      kernel.close(this.#dataFd);
      throw new QueueError(
        'damaged-queue',
        `${places.data} has ${actualBytes} bytes, expected ${head.sizeBytes}: a file that was cut cannot be mapped`,
      );
    }
    this.key = head.key;
    this.maxRecordBytes = head.maxRecordBytes;
    this.ring = { start: RING_START, end: head.sizeBytes - PAGE_BYTES };
    this.data = new DataMap(this.#dataFd, head.sizeBytes, head.maxRecordBytes, kernel);
    this.locks = new LockFile(places.lock, kernel);
    try {
      waitFor(this.locks, LOCK.opening, directories.directory, head.sizeBytes);
      const first = this.locks.tryLock(LOCK.users);
      if (first) {
        const opened = this.#restore(places.index, { ...wishes, dataBytes: head.sizeBytes }, head.queueId);
        this.image = opened.image;
        this.#indexFd = opened.fd;
        this.restore = opened.report;
      } else {
        const opened = this.#attach(places.index, head.queueId, head.sizeBytes);
        this.image = opened.image;
        this.#indexFd = opened.fd;
      }
      this.locks.lockShared(LOCK.users);
      this.locks.unlock(LOCK.opening);
    } catch (failure) {
      // With the locks: a process that goes on and tries again must restore, not trust what is half restored.
      this.locks.close();
      kernel.close(this.#dataFd);
      throw failure;
    }
  }

  #attach(path: string, queueId: string, dataBytes: number): { fd: number; image: IndexImage } {
    const { kernel } = this;
    const { page, fileBytes } = readFirstPage(kernel, path);
    const head = decodeIndexHead(page, fileBytes, queueId, dataBytes);
    if (!head.usable)
      throw new QueueError('damaged-queue', `${path}: ${head.why}, while the queue is in use`);
    const fd = kernel.open(path, 'r+');
    return { fd, image: this.#see(fd, fileBytes, head.geometry) };
  }

  #see(fd: number, fileBytes: number, geometry: Geometry): IndexImage {
    return this.#ground.image(mapShared(this.kernel, fd, 0, fileBytes), geometry);
  }

  #restore(
    path: string,
    wishes: Geometry,
    queueId: string,
  ): { fd: number; image: IndexImage; report: RestoreReport } {
    const { kernel } = this;
    const startedMs = kernel.monotonicMs();
    const { page, fileBytes } = readFirstPage(kernel, path);
    const head = decodeIndexHead(page, fileBytes, queueId, wishes.dataBytes);
    let old: { fd: number; image: IndexImage } | undefined;
    if (head.usable) {
      const fd = kernel.open(path, 'r+');
      const map = mapShared(kernel, fd, 0, fileBytes);
      // All of it is read now: page by page from a cold disk that takes as long as reading the messages.
      adviseWillNeed(kernel, map, 0, fileBytes);
      old = { fd, image: this.#ground.image(map, head.geometry) };
    }
    const slots = this.#ground.slots?.(this.data, this.key);
    const plan = planRestore(this.data, this.ring, this.key, old?.image, kernel.dateMs(), slots);
    const { keptAside } = pairPlaces(this.directories);
    for (const damage of plan.damage) keepAside(kernel, keptAside, this.data, damage);
    // What was copied but perhaps not synced when the crash came may be delivered now, so it must be on the disk:
    // stored before it is forwarded, always [0017]. And no mark takes the place of an older one before the older one's
    // record is off the disk.
    if (this.#isDoubtful(old?.image) || plan.alive.length + plan.settled.length > 0)
      this.#syncRing(old?.image);
    for (const page of generationPages(this.data)) {
      putGeneration(this.data, page, Math.floor(plan.nextNumber / GENERATION));
      this.#mustSync(page, PAGE_BYTES);
    }
    const used =
      old && old.image.geometry.entries >= plan.alive.length
        ? old
        : this.#renew(path, wishes, queueId, plan, old);
    for (const { offset, number } of plan.settled) markConsumed(used.image, this.key, offset, number);
    applyPlan(used.image, this.ring, plan);
    beginIndexSync(used.image, kernel);
    kernel.fsync(used.fd);
    endIndexSync(used.image);
    const report = {
      indexWas: head.usable ? null : head.why,
      restored: plan.alive.length,
      consumed: plan.consumed,
      uncertain: plan.uncertain,
      unfinished: plan.unfinished,
      damaged: plan.damage.map(({ number, offset, what }) => ({ number, offset, what })),
      tookMs: kernel.monotonicMs() - startedMs,
    };
    return { ...used, report };
  }

  /** Did the last msync not end, because it failed or its process died in it? Then pages may be clean and not on the disk. */
  #isDoubtful(image: IndexImage | undefined): boolean {
    return image !== undefined && image.get(FIELD.syncing) !== 0;
  }

  /** Notes meanwhile, as the helper does, that an msync is under way: the next restore may find no other sign of it. */
  #syncRing(image: IndexImage | undefined): void {
    const { start, end } = this.ring;
    if (this.#isDoubtful(image)) this.data.redirty(start, end - start);
    image?.put(FIELD.syncing, 1);
    this.#mustSync(start, end - start);
    image?.put(FIELD.syncing, 0);
  }

  #mustSync(offset: number, length: number): void {
    const failure = this.data.sync(offset, length);
    if (failure === 0) return;
    // The next restore must not find clean pages that are not on the disk.
    this.data.redirty(offset, length);
    throw new QueueError('sync-failed', `msync of the data file failed: errno ${failure}`);
  }

  /**
   * Puts a new index file in the place of one that is lost, or that has fewer entries than there are messages alive
   * (when marks were lost, consumed messages come back, and there can be more of them than entries). What the old
   * one knew to be consumed is carried over.
   */
  #renew(
    path: string,
    wishes: Geometry,
    queueId: string,
    plan: RestorePlan,
    old: { fd: number; image: IndexImage } | undefined,
  ): { fd: number; image: IndexImage } {
    const { kernel } = this;
    const entries = Math.max(wishes.entries, plan.alive.length);
    const geometry = { ...wishes, entries };
    const unfinished = `${path}.new`;
    createIndex(kernel, unfinished, geometry, queueId);
    const fd = kernel.open(unfinished, 'r+');
    const image = this.#see(fd, indexBytes(geometry), geometry);
    if (old) {
      image.words.set(old.image.words.subarray(old.image.marksWord), image.marksWord);
      kernel.close(old.fd);
    }
    kernel.fsync(fd);
    kernel.rename(unfinished, path);
    syncDirectory(this.directories.indexDirectory, kernel);
    return { fd, image };
  }

  /** Tells what a restore found that was not as it should be: a lost index, damaged records, messages that may come twice. */
  announceRestore(): void {
    const { directories, restore, kernel } = this;
    if (!restore) return;
    const { indexWas, uncertain, damaged } = restore;
    if (indexWas === null && uncertain === 0 && damaged.length === 0) return;
    announce(kernel, 'restored', { directory: directories.directory, ...restore });
  }

  /** From now on this process signs the mutex with its worker slot. */
  signAs(slot: number): void {
    this.#mutexName = slot + 1;
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
    this.#enter();
    try {
      if (image.get(FIELD.mutexOwner) !== 0) image.rollBack();
      image.put(FIELD.mutexOwner, this.#mutexName);
      for (const owed of this.#owed.splice(0)) owed();
      return change();
    } catch (error) {
      image.rollBack();
      throw error;
    } finally {
      image.put(FIELD.mutexOwner, 0);
      locks.unlock(LOCK.mutex);
    }
  }

  #enter(): void {
    const { directory } = this.directories;
    if (this.locks.lockWithin(LOCK.mutex, this.#isShutOut ? 0 : MUTEX_PATIENCE_MS)) {
      if (this.#isShutOut) announce(this.kernel, 'mutex-free', { directory });
      this.#isShutOut = false;
      return;
    }
    const slot = this.image.get(FIELD.mutexOwner) - 1;
    if (!this.#isShutOut) announce(this.kernel, 'mutex-held', { directory, slot, forMs: MUTEX_PATIENCE_MS });
    this.#isShutOut = true;
    throw new QueueError('mutex-held', `another process holds the mutex of ${directory}: is it stopped?`);
  }

  /** The same for a change that cannot be given up: when the mutex is held for too long it is done as soon as it is free. */
  withMutexAtLast(change: () => void): void {
    this.#owed.push(change);
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
  distrustPages(): void {
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
    const startedMs = kernel.dateMs();
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

/** One JSON line for the operator on stderr; the queue goes on. */
export function announce(kernel: Kernel, event: string, facts: object): void {
  kernel.say(JSON.stringify({ event, ...facts }));
}
