import { assert } from './errors.js';
import type { Kernel } from './kernel.js';
import { linux } from './linux.js';
import { adviseWillNeed, mapShared, PAGE_BYTES, syncMapped } from './map.js';

const WINDOW_BYTES = 2 ** 30;

/** A position in the mapped data file: `bytes` is a whole window, `at` the index of the position in it. */
export interface MappedRange {
  bytes: Buffer;
  at: number;
}

/** A data file as bytes at 64-bit offsets. It is mapped, or plain memory in tests. */
export interface DataBytes {
  readonly sizeBytes: number;
  /** Finds the bytes of a range. @throws QueueError `assertion` when the range is not inside the file. */
  locate(offset: number, length: number): MappedRange;
  /** Hints that the range will be read soon. Does not wait. */
  willNeed(offset: number, length: number): void;
}

/**
 * The queue data file, mapped into this process (patent [0046]). A file may be larger than 4 GB (patent [0023])
 * but a buffer may not, so the file is mapped in windows, one per GiB. Each window is longer than 1 GiB by the
 * size of the largest record, so that a record lies whole in the window in which it starts. Bounds are checked
 * before every access (patent [0047]). A window is mapped at its first access.
 */
export class DataMap implements DataBytes {
  readonly sizeBytes: number;
  readonly #kernel: Kernel;
  readonly #fd: number;
  readonly #overlapBytes: number;
  readonly #windows: Buffer[] = [];

  constructor(fd: number, sizeBytes: number, maxRecordBytes: number, kernel: Kernel = linux) {
    this.#kernel = kernel;
    this.#fd = fd;
    this.sizeBytes = sizeBytes;
    this.#overlapBytes = Math.ceil(maxRecordBytes / PAGE_BYTES) * PAGE_BYTES + PAGE_BYTES;
  }

  locate(offset: number, length: number): MappedRange {
    assert(
      offset >= 0 && length >= 0 && offset + length <= this.sizeBytes,
      'access stays within the data file',
    );
    const index = Math.floor(offset / WINDOW_BYTES);
    const bytes = this.#windows[index] ?? this.#map(index);
    const at = offset - index * WINDOW_BYTES;
    assert(at + length <= bytes.length, 'a record is not larger than the largest record');
    return { bytes, at };
  }

  #map(index: number): Buffer {
    const start = index * WINDOW_BYTES;
    const length = Math.min(WINDOW_BYTES + this.#overlapBytes, this.sizeBytes - start);
    const window = mapShared(this.#kernel, this.#fd, start, length);
    this.#windows[index] = window;
    return window;
  }

  willNeed(offset: number, length: number): void {
    const { bytes, at } = this.locate(offset, Math.min(length, WINDOW_BYTES - (offset % WINDOW_BYTES)));
    adviseWillNeed(this.#kernel, bytes, at, length);
  }

  /**
   * Writes the pages of a range to the disk and waits until they are on the disk. Maps the range first if
   * necessary (patent [0042, 0052]).
   *
   * @returns 0, or the errno of the first failure.
   */
  sync(offset: number, length: number): number {
    let from = offset;
    const end = offset + length;
    while (from < end) {
      const next = Math.min(end, (Math.floor(from / WINDOW_BYTES) + 1) * WINDOW_BYTES);
      const { bytes, at } = this.locate(from, next - from);
      const failure = syncMapped(this.#kernel, bytes, at, next - from);
      if (failure !== 0) return failure;
      from = next;
    }
    return 0;
  }

  /**
   * Marks every page of a range dirty again without changing a byte. After a failed msync the kernel treats
   * the pages as clean. The next msync would succeed without writing them, and messages would be confirmed
   * that are not on the disk.
   */
  redirty(offset: number, length: number): void {
    const first = Math.floor(offset / PAGE_BYTES) * PAGE_BYTES;
    for (let page = first; page < offset + length; page += PAGE_BYTES) {
      const { bytes, at } = this.locate(page, 4);
      this.#kernel.markDirty(bytes, at);
    }
  }
}
