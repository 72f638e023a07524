import { assert } from '../platform/errors.js';
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
 * The index as words in memory. Every change to the lists goes through `change`, which notes the old value in
 * the undo log before it stores the new one: whoever finds a dead owner's mutex rolls back and has the lists as they
 * were before the change that was cut short.
 *
 * The order holds because one processor's stores are seen in program order by whoever comes after its death (the
 * kernel's lock hand-over is a full barrier), and the count is stored with Atomics so that the compiler keeps it.
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

  /** First word of an entry. */
  entryWord(entry: number): number {
    assert(entry >= 0 && entry < this.geometry.entries, 'an entry number is below the number of entries');
    return ENTRIES_OFFSET / WORD_BYTES + entry * ENTRY_WORDS;
  }

  get(word: number): number {
    return this.words[word] as number;
  }

  /** A single store; tests put a kill in its place. */
  put(word: number, value: number): void {
    this.words[word] = value;
  }

  /** Adds to a word that several processes count with, without a lock. @returns the value before. */
  add(word: number, value: number): number {
    return Atomics.add(this.words, word, value);
  }

  getWide(word: number): number {
    return (this.get(word) >>> 0) + (this.get(word + 1) >>> 0) * HIGH;
  }

  putWide(word: number, value: number): void {
    this.put(word, value | 0);
    this.put(word + 1, Math.floor(value / HIGH) | 0);
  }

  /** Part of a change to the lists: undone if the process dies before `commit`. */
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

  /** Makes the changes since the last commit final, all at once. */
  commit(): void {
    this.#setUndoCount(0);
  }

  /** Takes back what was not committed; may itself be cut short and done again. */
  rollBack(): void {
    // A copy of a damaged index is rolled back too, for inspection: its count may be anything.
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

  /** Keeps the stores before it before the stores after it. */
  protected fence(): void {
    Atomics.load(this.words, FIELD.undoCount);
  }
}
