import type { DataBytes } from '../../common/platform/data-map.js';
import { PAGE_BYTES } from '../../common/platform/map.js';
import type { ChecksumKey } from '../../common/record/checksum.js';
import { HEADER_BYTES, SIGNATURE_WORD, SLOT_BYTES } from '../record/layout.js';
import { readSlot, type SlotContent } from '../record/record.js';
import type { SlotReader } from './scan.js';

/** Value of `#empty` for a page without a signature at a slot boundary. */
const EMPTY = 1;

/**
 * A cache for reading the slots of one data file many times, when the file changes little in between. The
 * content of a slot depends only on the bytes of its header and, if the header is whole, on the bytes of its
 * record. A cached answer therefore stays right while the pages with these bytes are unchanged, byte for
 * byte.
 */
export class CachedSlotReader implements SlotReader {
  /** Copy of the file from the last `refresh`. */
  readonly #copy: Buffer;
  /** By page: number of the last refresh that found the page changed. */
  readonly #changedAt: Int32Array;
  /** By page: `EMPTY` when no slot of the page begins with a signature. */
  readonly #empty: Uint8Array;
  /** By slot: the cached answer. */
  readonly #contents: (SlotContent | undefined)[];
  /** By slot: number of the last refresh before the cached answer was read from the file. */
  readonly #readAt: Int32Array;
  #refreshCount = 0;

  /** @param sizeBytes size of the data file, which must not change. */
  constructor(sizeBytes: number) {
    const pages = Math.ceil(sizeBytes / PAGE_BYTES);
    this.#copy = Buffer.alloc(sizeBytes);
    this.#changedAt = new Int32Array(pages);
    // The copy is all zeros at first, so every page of it is empty.
    this.#empty = new Uint8Array(pages).fill(EMPTY);
    this.#contents = new Array<SlotContent | undefined>(Math.ceil(sizeBytes / SLOT_BYTES)).fill(undefined);
    this.#readAt = new Int32Array(this.#contents.length);
  }

  /** Compares the file with the copy. The caller must call this whenever the file may have changed. */
  refresh(data: DataBytes): void {
    this.#refreshCount += 1;
    data.willNeed(0, data.sizeBytes);
    for (let page = 0; page < this.#changedAt.length; page += 1) this.#refreshPage(data, page);
  }

  #refreshPage(data: DataBytes, page: number): void {
    const from = page * PAGE_BYTES;
    const to = Math.min(from + PAGE_BYTES, data.sizeBytes);
    const { bytes, at } = data.locate(from, to - from);
    if (bytes.compare(this.#copy, from, to, at, at + to - from) === 0) return;
    bytes.copy(this.#copy, from, at, at + to - from);
    this.#changedAt[page] = this.#refreshCount;
    let empty = EMPTY;
    for (let slot = from; slot < to; slot += SLOT_BYTES) {
      if (this.#copy.readUInt32LE(slot) === SIGNATURE_WORD) empty = 0;
    }
    this.#empty[page] = empty;
  }

  /**
   * Returns the result of `readSlot`. It is the same object while the bytes that it depends on are unchanged.
   */
  read(data: DataBytes, key: ChecksumKey, offset: number): SlotContent {
    const slot = offset / SLOT_BYTES;
    const known = this.#contents[slot];
    if (known !== undefined && this.#isUnchanged(known, offset, this.#readAt[slot] ?? 0)) return known;
    const found = readSlot(data, key, offset);
    this.#contents[slot] = found;
    this.#readAt[slot] = this.#refreshCount;
    return found;
  }

  /**
   * Skips the pages without a signature.
   *
   * @returns the first slot boundary at or behind `offset` that is left.
   */
  skip(offset: number): number {
    let page = Math.floor(offset / PAGE_BYTES);
    if (this.#empty[page] !== EMPTY) return offset;
    while (this.#empty[page] === EMPTY) page += 1;
    return page * PAGE_BYTES;
  }

  #isUnchanged(known: SlotContent, offset: number, since: number): boolean {
    const length = 'header' in known ? known.header.sizeBytes : HEADER_BYTES;
    const last = Math.floor((offset + length - 1) / PAGE_BYTES);
    for (let page = Math.floor(offset / PAGE_BYTES); page <= last; page += 1) {
      if ((this.#changedAt[page] ?? 0) > since) return false;
    }
    return true;
  }
}
