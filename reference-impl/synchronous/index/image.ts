import { assert } from '../../common/platform/errors.js';
import {
  ENTRIES_OFFSET,
  ENTRY_WORDS,
  FIELD,
  type Geometry,
  marksOffset,
  UNDO_CAPACITY,
  WORD_BYTES,
} from './layout.js';

const HIGH = 2 ** 32;

/**
 * The index as 32-bit words in memory. Every change to the lists goes through `change`, which writes the old
 * value into the undo log before it stores the new value. The process that takes over the mutex of a dead
 * owner rolls back. The lists are then as they were before the interrupted change.
 *
 * This depends on the order of the stores. The next owner of the mutex sees the stores of the dead process in
 * program order, because the kernel's hand-over of the lock is a full barrier. `fence` keeps the compiler
 * from reordering the stores.
 */
export class IndexImage {
  readonly words: Int32Array;
  readonly geometry: Geometry;
  readonly firstMarkWord: number;

  constructor(bytes: Uint8Array, geometry: Geometry) {
    this.words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / WORD_BYTES);
    this.geometry = geometry;
    this.firstMarkWord = marksOffset(geometry.entries) / WORD_BYTES;
  }

  /** Returns the number of the first word of an entry. */
  entryWord(entry: number): number {
    assert(entry >= 0 && entry < this.geometry.entries, 'an entry number is below the number of entries');
    return ENTRIES_OFFSET / WORD_BYTES + entry * ENTRY_WORDS;
  }

  get(word: number): number {
    return this.words[word] as number;
  }

  /** Stores one word. Tests override this method to kill the process between two stores. */
  put(word: number, value: number): void {
    this.words[word] = value;
  }

  /** Adds atomically to a counter that several processes change without a lock. @returns the value before. */
  add(word: number, value: number): number {
    return Atomics.add(this.words, word, value);
  }

  /** Reads an unsigned number from two words, the low word first. */
  getWide(word: number): number {
    return (this.get(word) >>> 0) + (this.get(word + 1) >>> 0) * HIGH;
  }

  putWide(word: number, value: number): void {
    this.put(word, value | 0);
    this.put(word + 1, Math.floor(value / HIGH) | 0);
  }

  /** Stores one word of a change to the lists. The store is undone if the process dies before `commit`. */
  change(word: number, value: number): void {
    const count = this.get(FIELD.undoCount);
    assert(count < UNDO_CAPACITY, 'a change to the lists fits the undo log');
    const at = FIELD.undo + 2 * count;
    this.put(at, word);
    this.put(at + 1, this.get(word));
    this.#setUndoCount(count + 1);
    this.put(word, value);
  }

  changeWide(word: number, value: number): void {
    this.change(word, value | 0);
    this.change(word + 1, Math.floor(value / HIGH) | 0);
  }

  /** Makes all changes since the last commit final at once. */
  commit(): void {
    this.#setUndoCount(0);
  }

  /** Undoes all changes since the last commit. If a rollback is interrupted, it can be repeated. */
  rollBack(): void {
    // Limit the count: a copy of a damaged index is rolled back too, for inspection, and may hold any count.
    for (let count = Math.min(this.get(FIELD.undoCount), UNDO_CAPACITY); count > 0; count -= 1) {
      const at = FIELD.undo + 2 * (count - 1);
      this.put(this.get(at), this.get(at + 1));
    }
    this.#setUndoCount(0);
  }

  #setUndoCount(count: number): void {
    this.fence();
    this.put(FIELD.undoCount, count);
    this.fence();
  }

  /** Keeps the compiler from moving a store across this call. */
  protected fence(): void {
    Atomics.load(this.words, FIELD.undoCount);
  }
}
