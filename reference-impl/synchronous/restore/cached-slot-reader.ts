import type { DataBytes } from '../platform/data-map.js';
import { PAGE_BYTES } from '../platform/map.js';
import type { ChecksumKey } from '../record/checksum.js';
import { HEADER_BYTES, SIGNATURE_WORD, SLOT_BYTES } from '../record/layout.js';
import { readSlot, type SlotContent } from '../record/record.js';
import type { SlotReader } from './scan.js';

const EMPTY = 1;

/**
 * Reads the slots of one data file again and again, which changes little in between: what stands at a slot depends on
 * nothing but the bytes of its header and, where that is whole, of its record, so that the answer stays what it
 * was while the pages under them are the same, byte for byte.
 */
export class CachedSlotReader implements SlotReader {
  /** The file as it was at the last `refresh`. */
  readonly #copy: Buffer;
  /** By page: the refresh that found it changed last. */
  readonly #changedAt: Int32Array;
  /** By page: `EMPTY` when no slot in it begins with a signature. */
  readonly #empty: Uint8Array;
  readonly #contents: (SlotContent | undefined)[];
  /** By slot: the refresh of its answer. */
  readonly #readAt: Int32Array;
  #refreshCount = 0;

  /** @param sizeBytes of the data file; it stays. */
  constructor(sizeBytes: number) {
    const pages = Math.ceil(sizeBytes / PAGE_BYTES);
    this.#copy = Buffer.alloc(sizeBytes);
    this.#changedAt = new Int32Array(pages);
    // The copy begins with zeros, and so does what is known of it.
    this.#empty = new Uint8Array(pages).fill(EMPTY);
    this.#contents = new Array<SlotContent | undefined>(Math.ceil(sizeBytes / SLOT_BYTES)).fill(undefined);
    this.#readAt = new Int32Array(this.#contents.length);
  }

  /**
   * To be called whenever the file may have changed.
   * @param pages numbers of those that may have; default: all.
   */
  refresh(data: DataBytes, pages?: Iterable<number>): void {
    this.#refreshCount += 1;
    if (pages !== undefined) {
      for (const page of pages) this.#refreshPage(data, page);
      return;
    }
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

  /** What `readSlot` says; the same object as long as the bytes that it speaks of are the same. */
  read(data: DataBytes, key: ChecksumKey, offset: number): SlotContent {
    const slot = offset / SLOT_BYTES;
    const known = this.#contents[slot];
    if (known !== undefined && this.#isUnchanged(known, offset, this.#readAt[slot] ?? 0)) return known;
    const found = readSlot(data, key, offset);
    this.#contents[slot] = found;
    this.#readAt[slot] = this.#refreshCount;
    return found;
  }

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
