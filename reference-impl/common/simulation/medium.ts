import { PAGE_BYTES } from '../platform/map.js';

/** Size of a sector in bytes. The drive writes a sector whole or not at all. */
export const SECTOR_BYTES = 512;
const SECTORS_PER_PAGE = PAGE_BYTES / SECTOR_BYTES;
const ZEROS = Buffer.alloc(PAGE_BYTES);

/** A page that the kernel has written to the drive and the drive has not flushed. */
interface PendingWrite {
  page: number;
  bytes: Buffer;
}

/**
 * A file with three layers of storage. All processes share the page cache, which survives every kill. The cache of
 * the drive contains pages that the kernel wrote back and that await a flush. Only the medium survives a power cut.
 *
 * The faults are those of real machines. The kernel may write back any dirty page at any time. A power cut
 * keeps any part of the unflushed data, sector by sector (512 bytes), including parts of a page that the
 * kernel was writing. A flush makes all pages durable that were written back to the drive before it.
 *
 * The size is metadata of the file: only a sync of this file makes it durable. Until then a power cut leaves
 * any size since the last sync. Bytes below that size that were not written are zeros or, in any mixture,
 * what was there before the file was cut.
 */
export class SimFile {
  readonly drive: number;
  sizeBytes = 0;
  /** The page cache. It is built on first use, because most crash states are read only in part. */
  #cache: Buffer | undefined;
  /**
   * The version of each page that was last written back. These buffers are never
   * modified, so machines share them.
   */
  #written: Buffer[] = [];
  #durable: Buffer[] = [];
  #pending: PendingWrite[] = [];
  /** Pages that are dirty although no byte differs. */
  readonly #markedDirty = new Set<number>();
  /** The sizes that the file may have on the medium, oldest first. The first is durable, the last is the current one. */
  #sizes: number[] = [0];
  /** Number of changes of the size so far. */
  #resizes = 0;
  /** The size whose sync failed: no later sync writes it, as the kernel takes it for written. */
  #failedSize: number | undefined;
  /** Pages that the file lost or got anew when it was cut, until a sync of the file. */
  readonly #cut = new Set<number>();

  constructor(drive: number) {
    this.drive = drive;
  }

  /** The page cache in whole pages. All mappings share these bytes. */
  get cache(): Buffer {
    this.#cache ??= Buffer.concat(this.#written, this.pages * PAGE_BYTES);
    return this.#cache;
  }

  /**
   * Copies bytes of the page cache.
   * @returns the number of bytes, which the end of the file limits
   */
  read(to: Buffer, at: number, from: number, length: number): number {
    const end = Math.min(from + length, this.sizeBytes);
    if (from >= end) return 0;
    if (this.#cache) return this.#cache.copy(to, at, from, end);
    // Do not build the page cache for a read: most crash states are read once.
    for (let position = from; position < end; ) {
      const start = position % PAGE_BYTES;
      const part = Math.min(PAGE_BYTES - start, end - position);
      this.#written[(position - start) / PAGE_BYTES]?.copy(to, at + position - from, start, start + part);
      position += part;
    }
    return end - from;
  }

  get pages(): number {
    return this.#written.length;
  }

  /** Changes the size. New bytes are zeros. The new size is durable once a sync of the file is complete. */
  resize(sizeBytes: number): void {
    if (sizeBytes === this.sizeBytes) return;
    const pages = Math.ceil(sizeBytes / PAGE_BYTES);
    if (pages !== this.pages) this.#resizeCache(pages);
    if (sizeBytes < this.sizeBytes) this.cache.fill(0, sizeBytes);
    this.sizeBytes = sizeBytes;
    this.#sizes.push(sizeBytes);
    this.#resizes += 1;
    this.#failedSize = undefined;
  }

  #resizeCache(pages: number): void {
    const old = this.cache;
    for (let page = pages; page < this.pages; page += 1) {
      this.#cut.add(page);
      this.#markedDirty.delete(page);
      this.#pending.push({ page, bytes: ZEROS });
    }
    while (this.#written.length < pages) this.#written.push(ZEROS);
    this.#written.length = pages;
    while (this.#durable.length < pages) this.#durable.push(ZEROS);
    this.#cache = Buffer.alloc(pages * PAGE_BYTES);
    old.copy(this.#cache);
  }

  /** Returns a mark of the current size, for `settleSize`. */
  get sizeMark(): number {
    return this.#resizes;
  }

  /** Makes the size durable that the file had at the mark: a sync that began then is complete. */
  settleSize(mark: number): void {
    if (this.#failedSize !== undefined) return;
    const later = this.#resizes - mark;
    if (this.#sizes.length > later + 1) this.#sizes = this.#sizes.slice(-later - 1);
    if (later > 0 || this.#cut.size === 0) return;
    this.#cut.clear();
    this.flush();
    this.#durable.length = this.pages;
  }

  /** Fails to write the size: the kernel treats it as written from now on, but the drive never got it. */
  failSize(): void {
    if (this.#sizes.length > 1) this.#failedSize = this.sizeBytes;
  }

  /** Returns whether a page must be written back: it differs from its last written version or is marked dirty. */
  isDirty(page: number): boolean {
    const written = this.#written[page];
    if (!this.#cache || !written) return false;
    const at = page * PAGE_BYTES;
    return this.#markedDirty.has(page) || written.compare(this.#cache, at, at + PAGE_BYTES) !== 0;
  }

  /** Returns the dirty pages from page `from` up to but not including page `to`. */
  dirtyPages(from = 0, to = this.pages): number[] {
    const dirty: number[] = [];
    for (let page = from; page < to; page += 1) if (this.isDirty(page)) dirty.push(page);
    return dirty;
  }

  /** Marks a page dirty, as a store of the same byte does. */
  markDirty(page: number): void {
    this.#markedDirty.add(page);
  }

  #page(page: number): Buffer {
    return Buffer.from(this.cache.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES));
  }

  /** Writes a page back: the kernel hands it to the drive. */
  writeBack(page: number): void {
    const bytes = this.#page(page);
    this.#pending.push({ page, bytes });
    this.#written[page] = bytes;
    this.#markedDirty.delete(page);
    // A page that is written again takes the size with it.
    if (this.#failedSize !== undefined && (page + 1) * PAGE_BYTES >= this.#failedSize)
      this.#failedSize = undefined;
  }

  /** Fails to write a page back: the kernel treats the page as clean from now on, but the drive never got it. */
  failWriteBack(page: number): void {
    this.#written[page] = this.#page(page);
    this.#markedDirty.delete(page);
  }

  /** Flushes the cache of the drive. A page that was cut off the file stays open until a sync of the file. */
  flush(): void {
    const open = this.#cut.size === 0 ? [] : this.#pending.filter(({ page }) => this.#cut.has(page));
    for (const { page, bytes } of this.#pending) if (!this.#cut.has(page)) this.#durable[page] = bytes;
    this.#pending = open;
  }

  /**
   * Returns the file after a power cut.
   * @param survivors selects what survives (see Survivors)
   */
  afterPowerCut({ chooseVersion, chooseSize }: Survivors): SimFile {
    const left = new SimFile(this.drive);
    left.#durable = [...this.#durable];
    for (const [page, versions] of this.versions()) {
      const mixed = Buffer.alloc(PAGE_BYTES);
      for (let sector = 0; sector < SECTORS_PER_PAGE; sector += 1) {
        const at = sector * SECTOR_BYTES;
        versions[chooseVersion(page, sector, versions.length)]?.copy(mixed, at, at, at + SECTOR_BYTES);
      }
      left.#durable[page] = mixed;
    }
    const sizes = this.#sizes;
    left.#cutTo(sizes[sizes.length > 1 ? chooseSize(sizes.length) : 0] as number);
    left.#written = [...left.#durable];
    return left;
  }

  /** Cuts the durable content to a size, or fills it up with zeros. */
  #cutTo(sizeBytes: number): void {
    this.sizeBytes = sizeBytes;
    this.#sizes = [sizeBytes];
    const pages = Math.ceil(sizeBytes / PAGE_BYTES);
    while (this.#durable.length < pages) this.#durable.push(ZEROS);
    this.#durable.length = pages;
    const last = this.#durable[pages - 1];
    const used = sizeBytes % PAGE_BYTES;
    if (!last || used === 0 || last.compare(ZEROS, used, PAGE_BYTES, used) === 0) return;
    const cut = Buffer.alloc(PAGE_BYTES);
    last.copy(cut, 0, 0, used);
    this.#durable[pages - 1] = cut;
  }

  /**
   * Returns the versions of each unflushed page that may be on the medium, oldest
   * first. The first one is flushed.
   */
  versions(): Map<number, Buffer[]> {
    const versions = new Map<number, Buffer[]>();
    const add = (page: number, bytes: Buffer): void => {
      const known = versions.get(page);
      if (known) known.push(bytes);
      else versions.set(page, [this.#durable[page] as Buffer, bytes]);
    };
    for (const { page, bytes } of this.#pending) add(page, bytes);
    for (const page of this.dirtyPages()) add(page, this.#page(page));
    return versions;
  }

  /** Returns a copy of the file for another machine, including its page cache. */
  copy(): SimFile {
    const copy = new SimFile(this.drive);
    copy.sizeBytes = this.sizeBytes;
    copy.#cache = this.#cache && Buffer.from(this.#cache);
    copy.#written = [...this.#written];
    copy.#durable = [...this.#durable];
    copy.#pending = [...this.#pending];
    for (const page of this.#markedDirty) copy.#markedDirty.add(page);
    copy.#sizes = [...this.#sizes];
    copy.#resizes = this.#resizes;
    copy.#failedSize = this.#failedSize;
    for (const page of this.#cut) copy.#cut.add(page);
    return copy;
  }
}

/** Selects what of a file survives a power cut. */
export interface Survivors {
  /**
   * Returns the version of a sector that survives. Version 0 is the flushed one. The versions in the cache of
   * the drive follow in order, and the version in the page cache is the last.
   */
  chooseVersion(page: number, sector: number, versions: number): number;
  /** Returns which of the possible sizes survives. Size 0 is the durable one, and the current size is the last. */
  chooseSize(sizes: number): number;
}

/**
 * Returns the selection for a seed. 0: only flushed data and the durable size. 1: also everything in the
 * cache of the drive, with the current size. 2: also everything in the page cache. Other seeds select a size,
 * and a version for each page or, if the page is torn, for each sector.
 */
export function chooseSurvivors(seed: number, pick: RandomPick): Survivors {
  if (seed === 0) return { chooseVersion: () => 0, chooseSize: () => 0 };
  const chooseLast = (versions: number): number => versions - 1;
  if (seed === 1) {
    return { chooseVersion: (_, __, versions) => Math.max(0, versions - 2), chooseSize: chooseLast };
  }
  if (seed === 2) return { chooseVersion: (_, __, versions) => versions - 1, chooseSize: chooseLast };
  let current = -1;
  let torn = false;
  let whole = 0;
  const chooseVersion = (page: number, sector: number, versions: number): number => {
    if (page !== current || sector === 0) {
      current = page;
      torn = pick(2) === 0;
      whole = pick(versions);
    }
    return torn ? pick(versions) : whole;
  };
  return { chooseVersion, chooseSize: pick };
}

/**
 * Returns pseudo-random whole numbers below a limit. One seed determines them all,
 * so that a run can be repeated.
 */
export type RandomPick = (below: number) => number;

/** Creates a generator of pseudo-random numbers from a seed (the mulberry32 algorithm). */
export function createPick(seed: number): RandomPick {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return Math.floor((((x ^ (x >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}
