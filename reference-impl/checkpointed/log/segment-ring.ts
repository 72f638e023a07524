import { constants } from 'node:fs';
import { join } from 'node:path';
import { syncDirectory } from '../../common/platform/directory.js';
import { FILE_MODE, type Kernel } from '../../common/platform/kernel.js';
import { hex16, PAGE_BYTES, writeWhole } from '../files.js';

const NAME = /^([0-9a-f]{16})\.segment$/;
/** Last part of the name of a segment that is being made. */
const PARTIAL = '.segment.new';
/**
 * Bytes of zeros in one write to a new segment. After large writes the page cache holds large folios, and each later sync of a
 * few records would write many times their size.
 */
const FILL_BYTES = PAGE_BYTES;
/** Writes between two turns of the event loop, while a new segment is filled. */
const FILL_WRITES_PER_TURN = 64;

/** Lists the sequence numbers of the segments in a directory, lowest first. */
export function listSegments(directory: string, kernel: Kernel): number[] {
  return kernel
    .list(directory)
    .flatMap((name) => {
      const [, digits] = NAME.exec(name) ?? [];
      return digits === undefined ? [] : [Number.parseInt(digits, 16)];
    })
    .sort((a, b) => a - b);
}

/** Removes the incomplete segments that a killed server has left. */
export function removePartialSegments(directory: string, kernel: Kernel): void {
  for (const name of kernel.list(directory)) if (name.endsWith(PARTIAL)) kernel.remove(join(directory, name));
}

/** Returns the path of a segment. */
export const segmentPath = (directory: string, sequence: number): string =>
  join(directory, `${hex16(sequence)}.segment`);

/**
 * The files of the log: segments of a fixed size, each preallocated with zeros, so that a later write changes no metadata. A
 * segment whose records no recovery needs is renamed and used again.
 */
export class SegmentRing {
  readonly #kernel: Kernel;
  readonly #directory: string;
  readonly #segmentBytes: number;
  /** Sequence numbers of the segments that are no longer needed. */
  readonly #free: number[];
  /** Sequence numbers of the segments that are prepared or in use, in order. */
  readonly #used: number[] = [];
  #preparing: Promise<void> | undefined;

  /** @param free sequence numbers of the existing segments that may be used again. */
  constructor(directory: string, segmentBytes: number, free: readonly number[], kernel: Kernel) {
    this.#kernel = kernel;
    this.#directory = directory;
    this.#segmentBytes = segmentBytes;
    this.#free = [...free];
  }

  /** Number of segments that are prepared or in use. */
  get usedCount(): number {
    return this.#used.length;
  }

  /** Lowest segment that is in use; undefined when none is. */
  get first(): number | undefined {
    return this.#used[0];
  }

  /** Returns whether a segment can be written to. */
  isReady(sequence: number): boolean {
    return this.#used.includes(sequence);
  }

  /** Waits until no segment is being made. */
  async whenIdle(): Promise<void> {
    while (this.#preparing !== undefined) await this.#preparing.catch(() => undefined);
  }

  /** Makes a segment ready. @throws the errors of node:fs, such as ENOSPC. The segment is then not ready. */
  async prepare(sequence: number): Promise<void> {
    // Nothing may come between the end of this loop and the assignment below.
    while (this.#preparing !== undefined) await this.#preparing.catch(() => undefined);
    if (this.isReady(sequence)) return;
    this.#preparing = this.#prepare(sequence).finally(() => {
      this.#preparing = undefined;
    });
    await this.#preparing;
  }

  async #prepare(sequence: number): Promise<void> {
    const path = segmentPath(this.#directory, sequence);
    const old = this.#free[0];
    if (old === undefined) await this.#create(path);
    else {
      this.#kernel.rename(segmentPath(this.#directory, old), path);
      this.#free.shift();
    }
    // Until the directory is synced, a power cut may take the segment away with all its records.
    syncDirectory(this.#directory, this.#kernel);
    this.#used.push(sequence);
    this.#used.sort((a, b) => a - b);
  }

  async #create(path: string): Promise<void> {
    const kernel = this.#kernel;
    const partial = `${path}.new`;
    const fd = kernel.open(partial, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, FILE_MODE);
    try {
      const zeros = Buffer.alloc(Math.min(FILL_BYTES, this.#segmentBytes));
      let writes = 0;
      for (let at = 0; at < this.#segmentBytes; at += zeros.length) {
        writeWhole(kernel, fd, zeros, at);
        writes += 1;
        if (writes % FILL_WRITES_PER_TURN === 0) await new Promise<void>((resolve) => kernel.defer(resolve));
      }
      await kernel.fdatasync(fd);
    } catch (error) {
      kernel.remove(partial);
      throw error;
    } finally {
      kernel.close(fd);
    }
    kernel.rename(partial, path);
  }

  /** Frees the segments before `sequence`. No recovery may need their records. */
  release(sequence: number): void {
    while (this.#used[0] !== undefined && this.#used[0] < sequence) {
      const freed = this.#used.shift();
      if (freed !== undefined) this.#free.push(freed);
    }
  }
}
