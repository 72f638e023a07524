import { PAGE_BYTES } from '../memory/map.js';
import type { Pick } from './random.js';

const SECTOR_BYTES = 512;
const SECTORS = PAGE_BYTES / SECTOR_BYTES;

/** A page that the kernel has handed to the drive and the drive has not flushed. */
interface Write {
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
  /** Whole pages; what the mappings show. */
  cache: Buffer = Buffer.alloc(0);
  sizeBytes = 0;
  /** What the drive was last given. */
  #written: Buffer = Buffer.alloc(0);
  #durable: Buffer = Buffer.alloc(0);
  #pending: Write[] = [];
  /** Pages that are dirty without a changed byte. */
  readonly #touched = new Set<number>();

  constructor(drive: number) {
    this.drive = drive;
  }

  get pages(): number {
    return this.cache.length / PAGE_BYTES;
  }

  resize(sizeBytes: number): void {
    const grown = (old: Buffer, length: number): Buffer => {
      const bytes = Buffer.alloc(length);
      old.copy(bytes);
      return bytes;
    };
    const whole = Math.ceil(sizeBytes / PAGE_BYTES) * PAGE_BYTES;
    if (whole !== this.cache.length) {
      this.cache = grown(this.cache, whole);
      this.#written = grown(this.#written, whole);
      this.#durable = grown(this.#durable, whole);
    }
    this.sizeBytes = sizeBytes;
  }

  isDirty(page: number): boolean {
    const at = page * PAGE_BYTES;
    const end = at + PAGE_BYTES;
    return this.#touched.has(page) || this.cache.compare(this.#written, at, end, at, end) !== 0;
  }

  dirtyPages(from = 0, to = this.pages): number[] {
    const dirty: number[] = [];
    for (let page = from; page < to; page += 1) if (this.isDirty(page)) dirty.push(page);
    return dirty;
  }

  /** Has a power cut anything to take? */
  get isAtRisk(): boolean {
    return this.#pending.length > 0 || this.dirtyPages().length > 0;
  }

  touch(page: number): void {
    this.#touched.add(page);
  }

  /** The kernel hands a page to the drive. */
  writeBack(page: number): void {
    const at = page * PAGE_BYTES;
    const bytes = Buffer.from(this.cache.subarray(at, at + PAGE_BYTES));
    this.#pending.push({ page, bytes });
    bytes.copy(this.#written, at);
    this.#touched.delete(page);
  }

  /** A write back that fails: the kernel takes the page for clean from now on, and the drive never got it. */
  failWriteBack(page: number): void {
    const at = page * PAGE_BYTES;
    this.cache.copy(this.#written, at, at, at + PAGE_BYTES);
    this.#touched.delete(page);
  }

  /** The drive's cache is flushed. */
  flush(): void {
    for (const { page, bytes } of this.#pending) bytes.copy(this.#durable, page * PAGE_BYTES);
    this.#pending = [];
  }

  /**
   * The file as the next boot finds it.
   * @param keep decides for every sector which of its versions survives: 0 is what was flushed, then what the drive had, in
   * order, at last what was in the page cache.
   */
  afterCut(keep: (page: number, sector: number, versions: number) => number): SimFile {
    const left = new SimFile(this.drive);
    left.sizeBytes = this.sizeBytes;
    left.#durable = Buffer.from(this.#durable);
    const versions = new Map<number, Buffer[]>();
    const add = (page: number, bytes: Buffer): void => {
      const known = versions.get(page);
      if (known) known.push(bytes);
      else versions.set(page, [bytes]);
    };
    for (const { page, bytes } of this.#pending) add(page, bytes);
    for (const page of this.dirtyPages()) {
      add(page, this.cache.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES));
    }
    for (const [page, list] of versions) {
      for (let sector = 0; sector < SECTORS; sector += 1) {
        const kept = list[keep(page, sector, list.length + 1) - 1];
        const at = sector * SECTOR_BYTES;
        kept?.copy(left.#durable, page * PAGE_BYTES + at, at, at + SECTOR_BYTES);
      }
    }
    left.#written = Buffer.from(left.#durable);
    left.cache = Buffer.from(left.#durable);
    return left;
  }

  /** The same file in another machine, page cache and all. */
  copy(): SimFile {
    const copy = new SimFile(this.drive);
    copy.sizeBytes = this.sizeBytes;
    copy.cache = Buffer.from(this.cache);
    copy.#written = Buffer.from(this.#written);
    copy.#durable = Buffer.from(this.#durable);
    copy.#pending = [...this.#pending];
    for (const page of this.#touched) copy.#touched.add(page);
    return copy;
  }
}

/**
 * What a power cut leaves of a drive, by seed. 0: nothing that was not flushed; 1: all that the drive had; 2: all; else
 * page by page something of it, now and then torn between sectors.
 */
export function survivors(
  seed: number,
  pick: Pick,
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
