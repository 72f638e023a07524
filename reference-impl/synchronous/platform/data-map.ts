import { assert } from './errors.js';
import type { Kernel } from './kernel.js';
import { linux } from './linux.js';
import { adviseWillNeed, mapShared, PAGE_BYTES, syncMapped } from './map.js';

const WINDOW_BYTES = 2 ** 30;

/** A place in the mapped data file: `bytes` is a whole window, `at` the position in it. */
export interface MappedRange {
  bytes: Buffer;
  at: number;
}

/** A data file seen as bytes at 64-bit offsets, whether it is mapped or (in tests) plain memory. */
export interface DataBytes {
  readonly sizeBytes: number;
  /** @throws QueueError `assertion` when the range is not inside the file. */
  locate(offset: number, length: number): MappedRange;
  /** A hint that the range will be read soon; does not wait. */
  willNeed(offset: number, length: number): void;
}

/**
 * The queue data file in this process's own map [0046]. A file may pass 4 GB [0023] but a buffer may not, so it is
 * mapped in windows of 1 GiB, each longer than its step by the largest record: a record lies whole in the window
 * in which it starts. Bounds are checked before every access [0047]. Windows are mapped when first touched.
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
   * Writes the pages of a range to the disk and waits for it; mapped first if it is not [0042, 0052].
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
   * Makes every page of a range dirty again without changing a byte. After a failed msync the kernel holds the pages
   * for clean, and the next msync of them succeeds without writing: a confirmation of nothing.
   */
  redirty(offset: number, length: number): void {
    const first = Math.floor(offset / PAGE_BYTES) * PAGE_BYTES;
    for (let page = first; page < offset + length; page += PAGE_BYTES) {
      const { bytes, at } = this.locate(page, 4);
      this.#kernel.markDirty(bytes, at);
    }
  }
}
