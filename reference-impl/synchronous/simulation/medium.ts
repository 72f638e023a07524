import { PAGE_BYTES } from '../platform/map.js';

export const SECTOR_BYTES = 512;
const SECTORS_PER_PAGE = PAGE_BYTES / SECTOR_BYTES;
const ZEROS = Buffer.alloc(PAGE_BYTES);

/** A page that the kernel has handed to the drive and the drive has not flushed. */
interface PendingWrite {
  page: number;
  bytes: Buffer;
}

/**
 * A file between three places: the page cache, which all processes share and which outlives every kill; the drive's
 * cache, where what the kernel wrote back waits for a flush; and the medium, which alone outlives a power cut.
 *
 * Fair, because real machines do it: the kernel may write any dirty page back at any time; a power cut keeps any part of
 * what was not flushed, sector by sector (512 bytes), also of a page that the kernel was just writing. A flush makes
 * durable what had been written back before it, on the whole drive.
 */
export class SimFile {
  readonly drive: number;
  sizeBytes = 0;
  /** The page cache, made when somebody looks: most crash states are looked at in part only. */
  #cache: Buffer | undefined;
  /** What the drive was last given, page by page; pages are never changed, so that machines can share them. */
  #written: Buffer[] = [];
  #durable: Buffer[] = [];
  #pending: PendingWrite[] = [];
  /** Pages that are dirty without a changed byte. */
  readonly #markedDirty = new Set<number>();

  constructor(drive: number) {
    this.drive = drive;
  }

  /** Whole pages; what the mappings show. */
  get cache(): Buffer {
    this.#cache ??= Buffer.concat(this.#written, this.pages * PAGE_BYTES);
    return this.#cache;
  }

  get pages(): number {
    return this.#written.length;
  }

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

  isDirty(page: number): boolean {
    const written = this.#written[page];
    if (!this.#cache || !written) return false;
    const at = page * PAGE_BYTES;
    return this.#markedDirty.has(page) || written.compare(this.#cache, at, at + PAGE_BYTES) !== 0;
  }

  dirtyPages(from = 0, to = this.pages): number[] {
    const dirty: number[] = [];
    for (let page = from; page < to; page += 1) if (this.isDirty(page)) dirty.push(page);
    return dirty;
  }

  markDirty(page: number): void {
    this.#markedDirty.add(page);
  }

  #page(page: number): Buffer {
    return Buffer.from(this.cache.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES));
  }

  /** The kernel hands a page to the drive. */
  writeBack(page: number): void {
    const bytes = this.#page(page);
    this.#pending.push({ page, bytes });
    this.#written[page] = bytes;
    this.#markedDirty.delete(page);
  }

  /** A write back that fails: the kernel takes the page for clean from now on, and the drive never got it. */
  failWriteBack(page: number): void {
    this.#written[page] = this.#page(page);
    this.#markedDirty.delete(page);
  }

  /** The drive's cache is flushed. */
  flush(): void {
    for (const { page, bytes } of this.#pending) this.#durable[page] = bytes;
    this.#pending = [];
  }

  /**
   * The file as the next boot finds it.
   * @param chooseVersion decides for every sector which of its versions survives: 0 is what was flushed, then what the drive had, in
   * order, at last what was in the page cache.
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

  /** What may be on the medium of each page that is not flushed, oldest first: the first is what the last flush left. */
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

  /** The same file in another machine, page cache and all. */
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
 * What a power cut leaves of a drive, by seed. 0: nothing that was not flushed; 1: all that the drive had; 2: all; else
 * page by page something of it, now and then torn between sectors.
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

/** Whole numbers below a limit, all of them fixed by one seed: what fast-check chose is the whole story of a run. */
export type RandomPick = (below: number) => number;

/** mulberry32 */
export function createPick(seed: number): RandomPick {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return Math.floor((((x ^ (x >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}
