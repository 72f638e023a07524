import type { DataBytes } from '../memory/data-map.js';
import { PAGE_BYTES } from '../memory/map.js';
import type { ChecksumKey } from '../record/checksum.js';
import { HEADER_BYTES, SLOT_BYTES } from '../record/layout.js';
import { type AtSlot, readSlot } from '../record/record.js';

/**
 * Reads the slots of one data file again and again, which changes little in between: what stands at a slot depends on
 * nothing but the bytes of its header and, where that is whole, of its record, so that the answer stays what it
 * was while the pages under them are the same, byte for byte.
 */
export class RememberedSlots {
  /** The file as it was at the last `refresh`. */
  readonly #copy: Buffer;
  /** By page: the refresh that found it changed last. */
  readonly #changedAt: Int32Array;
  readonly #answers: (AtSlot | undefined)[];
  /** By slot: the refresh of its answer. */
  readonly #answeredAt: Int32Array;
  #now = 0;

  /** @param sizeBytes of the data file; it stays. */
  constructor(sizeBytes: number) {
    this.#copy = Buffer.alloc(sizeBytes);
    this.#changedAt = new Int32Array(Math.ceil(sizeBytes / PAGE_BYTES));
    this.#answers = new Array<AtSlot | undefined>(Math.ceil(sizeBytes / SLOT_BYTES)).fill(undefined);
    this.#answeredAt = new Int32Array(this.#answers.length);
  }

  /** Looks at every page; to be called whenever the file may have changed. */
  refresh(data: DataBytes): void {
    this.#now += 1;
    for (let from = 0; from < data.sizeBytes; from += PAGE_BYTES) {
      const to = Math.min(from + PAGE_BYTES, data.sizeBytes);
      const { bytes, at } = data.place(from, to - from);
      if (bytes.compare(this.#copy, from, to, at, at + to - from) === 0) continue;
      bytes.copy(this.#copy, from, at, at + to - from);
      this.#changedAt[from / PAGE_BYTES] = this.#now;
    }
  }

  /** What `readSlot` says; the same object as long as the bytes that it speaks of are the same. */
  readonly read = (data: DataBytes, key: ChecksumKey, offset: number): AtSlot => {
    const slot = offset / SLOT_BYTES;
    const known = this.#answers[slot];
    if (known !== undefined && this.#unchanged(known, offset, this.#answeredAt[slot] ?? 0)) return known;
    const found = readSlot(data, key, offset);
    this.#answers[slot] = found;
    this.#answeredAt[slot] = this.#now;
    return found;
  };

  #unchanged(known: AtSlot, offset: number, since: number): boolean {
    const length = 'header' in known ? known.header.sizeBytes : HEADER_BYTES;
    const last = Math.floor((offset + length - 1) / PAGE_BYTES);
    for (let page = Math.floor(offset / PAGE_BYTES); page <= last; page += 1) {
      if ((this.#changedAt[page] ?? 0) > since) return false;
    }
    return true;
  }
}
