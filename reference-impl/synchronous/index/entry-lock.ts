import type { LockFile } from '../../common/platform/locks.js';
import type { IndexImage } from './image.js';
import { WORKER_SLOTS_WORD } from './layout.js';
import { LOCK } from './lock-bytes.js';

/**
 * Number of bits of a lock word that hold the worker slot. A lock word is the 32-bit value in an index entry
 * that says which worker has locked the entry. The low 10 bits hold the number of the worker's slot plus 1. The
 * high 22 bits hold the worker's incarnation, which is a counter of the workers that have used the slot. The
 * owner is alive while it holds its slot's byte of the lock file and no successor has got the slot. The patent
 * stores a process id instead [0019]. A process id does not identify a process across containers, and the
 * kernel uses it again.
 */
const SLOT_BITS = 10;
const SLOT_MASK = (1 << SLOT_BITS) - 1;
const INCARNATION_MASK = (1 << (32 - SLOT_BITS)) - 1;

/**
 * Returns the value that a worker writes into an index entry to lock it. It is never 0, which means unlocked.
 */
export const lockWord = (slot: number, incarnation: number): number =>
  ((incarnation & INCARNATION_MASK) << SLOT_BITS) | (slot + 1);

/**
 * Finds out whether the workers that have locked index entries are alive. The answers are cached for the
 * lifetime of this object, which is one walk through the list of entries. The next walk detects a worker that
 * dies meanwhile.
 */
export class LockOwners {
  readonly #image: IndexImage;
  readonly #locks: LockFile;
  readonly #own: number;
  readonly #aliveByLock = new Map<number, boolean>();

  /** @param own the value by which the calling worker locks entries (`lockWord`). */
  constructor(image: IndexImage, locks: LockFile, own: number) {
    this.#image = image;
    this.#locks = locks;
    this.#own = own;
  }

  /**
   * Returns whether the worker that locked an entry is alive; false for 0, which means unlocked.
   * @param lock the value in the entry.
   */
  isAlive(lock: number): boolean {
    if (lock === 0) return false;
    if (lock === this.#own) return true;
    const known = this.#aliveByLock.get(lock);
    if (known !== undefined) return known;
    const alive = this.#isOwnerAlive(lock);
    this.#aliveByLock.set(lock, alive);
    return alive;
  }

  #isOwnerAlive(lock: number): boolean {
    const slot = (lock & SLOT_MASK) - 1;
    if (slot < 0 || slot >= this.#image.geometry.workerSlots) return false;
    const incarnation = this.#image.get(WORKER_SLOTS_WORD + slot);
    return lockWord(slot, incarnation) === lock && this.#locks.isHeldElsewhere(LOCK.firstSlot + slot);
  }
}
