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

  constructor(drive: number) {
    this.drive = drive;
  }

  /** The page cache in whole pages. All mappings share these bytes. */
  get cache(): Buffer {
    this.#cache ??= Buffer.concat(this.#written, this.pages * PAGE_BYTES);
    return this.#cache;
  }

  get pages(): number {
    return this.#written.length;
  }

  /** Changes the size. New pages are zeros, on the medium too. */
  resize(sizeBytes: number): void {
    const pages = Math.ceil(sizeBytes / PAGE_BYTES);
    if (pages !== this.pages) {
      const old = this.cache;
      for (const list of [this.#written, this.#durable]) {
        while (list.length < pages) list.push(ZEROS);
        list.length = pages;
      }
      this.#cache = Buffer.alloc(pages * PAGE_BYTES);
      old.copy(this.#cache);
    }
    this.sizeBytes = sizeBytes;
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
  }

  /** Fails to write a page back: the kernel treats the page as clean from now on, but the drive never got it. */
  failWriteBack(page: number): void {
    this.#written[page] = this.#page(page);
    this.#markedDirty.delete(page);
  }

  /** Flushes the cache of the drive. */
  flush(): void {
    for (const { page, bytes } of this.#pending) this.#durable[page] = bytes;
    this.#pending = [];
  }

  /**
   * Returns the file after a power cut.
   * @param chooseVersion selects the version of every sector that survives. Version 0 is the flushed one. The
   * versions in the cache of the drive follow in order, and the version in the page cache is the last.
   */
  afterPowerCut(chooseVersion: (page: number, sector: number, versions: number) => number): SimFile {
    const left = new SimFile(this.drive);
    left.sizeBytes = this.sizeBytes;
    left.#durable = [...this.#durable];
    for (const [page, versions] of this.versions()) {
      const mixed = Buffer.alloc(PAGE_BYTES);
      for (let sector = 0; sector < SECTORS_PER_PAGE; sector += 1) {
        const at = sector * SECTOR_BYTES;
        versions[chooseVersion(page, sector, versions.length)]?.copy(mixed, at, at, at + SECTOR_BYTES);
      }
      left.#durable[page] = mixed;
    }
    left.#written = [...left.#durable];
    return left;
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
    return copy;
  }
}

/**
 * Returns the function that selects the surviving versions for a seed. 0: only flushed data. 1: also
 * everything in the cache of the drive. 2: also everything in the page cache. Other seeds select a version
 * for each page or, if the page is torn, for each sector.
 */
export function chooseSurvivors(
  seed: number,
  pick: RandomPick,
): (page: number, sector: number, versions: number) => number {
  if (seed === 0) return () => 0;
  if (seed === 1) return (_, __, versions) => Math.max(0, versions - 2);
  if (seed === 2) return (_, __, versions) => versions - 1;
  let current = -1;
  let torn = false;
  let whole = 0;
  return (page, sector, versions) => {
    if (page !== current || sector === 0) {
      current = page;
      torn = pick(2) === 0;
      whole = pick(versions);
    }
    return torn ? pick(versions) : whole;
  };
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
