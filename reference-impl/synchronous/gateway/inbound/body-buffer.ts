import type { Holding } from './memory-budget.js';

/** Size of a full segment. A message of many short lines and a message of one long line take the same memory. */
const SEGMENT_BYTES = 16 * 1024;
/** Sizes of the first segment while it grows, so that 1,000 messages that have just begun take little memory. */
const FIRST_SEGMENT_BYTES = [1024, 4096, SEGMENT_BYTES];
const EMPTY = Buffer.alloc(0);

/**
 * Segments that are used again. Memory that waits for the garbage collector is counted by no budget, and under load
 * there could be more of it than the budget allows.
 */
export class SegmentPool {
  readonly #free: Buffer[] = [];

  get(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(SEGMENT_BYTES);
  }

  put(segment: Buffer): void {
    if (segment.length === SEGMENT_BYTES) this.#free.push(segment);
  }
}

/** The data of a message that is being received. It grows in segments, which count in its holding. */
export class BodyBuffer {
  readonly #holding: Holding;
  readonly #pool: SegmentPool;
  readonly #head: Buffer;
  #full: Buffer[] = [];
  #last: Buffer = EMPTY;
  #lastBytes = 0;
  /** The chunk that is the whole message. */
  #only: Buffer | undefined;

  /** @param head bytes in front of the content, which the caller has already taken from the budget */
  constructor(holding: Holding, pool: SegmentPool, head: Buffer = EMPTY) {
    this.#holding = holding;
    this.#pool = pool;
    this.#head = head;
  }

  get sizeBytes(): number {
    return this.#full.length * SEGMENT_BYTES + this.#lastBytes;
  }

  /** Copies bytes to the end. Returns false if the budget has no room for them; the content is incomplete then. */
  append(bytes: Buffer): boolean {
    let from = 0;
    while (from < bytes.length) {
      if (this.#lastBytes === this.#last.length && !this.#grow(bytes.length - from)) return false;
      const copied = bytes.copy(this.#last, this.#lastBytes, from);
      this.#lastBytes += copied;
      from += copied;
    }
    return true;
  }

  /**
   * Appends the last bytes. A message that came in one chunk is taken over without a copy.
   * Returns false if the budget has no room for them.
   */
  appendLast(bytes: Buffer): boolean {
    if (this.sizeBytes > 0) return this.append(bytes);
    if (!this.#holding.take(bytes.length)) return false;
    this.#only = bytes;
    return true;
  }

  /** Returns the head and the content as one buffer, and empties this one. The holding then counts the returned buffer. */
  take(): Buffer {
    const only = this.#only;
    this.#only = undefined;
    const head = this.#head;
    if (only !== undefined) return head.length === 0 ? only : Buffer.concat([head, only]);
    const { sizeBytes } = this;
    const content = Buffer.allocUnsafe(head.length + sizeBytes);
    let at = head.copy(content);
    for (const segment of this.#full) at += segment.copy(content, at);
    this.#last.copy(content, at, 0, this.#lastBytes);
    this.drop();
    // It fits: at least as many bytes were just given back.
    this.#holding.take(sizeBytes);
    return content;
  }

  /** Gives the segments and their bytes back. */
  drop(): void {
    this.#holding.give(this.#full.length * SEGMENT_BYTES + this.#last.length);
    for (const segment of this.#full) this.#pool.put(segment);
    this.#pool.put(this.#last);
    this.#full = [];
    this.#last = EMPTY;
    this.#lastBytes = 0;
  }

  #grow(wantedBytes: number): boolean {
    if (this.#last.length === SEGMENT_BYTES) {
      if (!this.#holding.take(SEGMENT_BYTES)) return false;
      this.#full.push(this.#last);
      this.#last = this.#pool.get();
      this.#lastBytes = 0;
      return true;
    }
    const isFirst = this.#full.length === 0;
    const neededBytes = this.#lastBytes + wantedBytes;
    const sizeBytes = (isFirst && FIRST_SEGMENT_BYTES.find((step) => step >= neededBytes)) || SEGMENT_BYTES;
    if (!this.#holding.take(sizeBytes - this.#last.length)) return false;
    const larger = sizeBytes === SEGMENT_BYTES ? this.#pool.get() : Buffer.allocUnsafeSlow(sizeBytes);
    this.#last.copy(larger, 0, 0, this.#lastBytes);
    this.#last = larger;
    return true;
  }
}
