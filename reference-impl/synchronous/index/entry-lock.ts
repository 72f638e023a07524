import { LOCK, type LockFile } from '../platform/locks.js';
import type { IndexImage } from './image.js';
import { WORKER_SLOTS_WORD } from './layout.js';

/**
 * An entry's lock names its owner by worker slot and incarnation: 10 bits of slot + 1, 22 bits of incarnation. The
 * owner lives while the kernel holds the slot's byte of the lock file for it and the slot has not been given
 * to a successor. (The patent has a process id there [0019], which names nobody once containers or time are involved.)
 */
const SLOT_BITS = 10;
const SLOT_MASK = (1 << SLOT_BITS) - 1;
const INCARNATION_MASK = (1 << (32 - SLOT_BITS)) - 1;

export const lockWord = (slot: number, incarnation: number): number =>
  ((incarnation & INCARNATION_MASK) << SLOT_BITS) | (slot + 1);

/**
 * Is the owner of an entry's lock alive? Answers are kept for the life of this object, which is one walk through the
 * list: an owner that dies meanwhile is found dead by the next walk.
 */
export class LockOwners {
  readonly #image: IndexImage;
  readonly #locks: LockFile;
  readonly #own: number;
  readonly #aliveByLock = new Map<number, boolean>();

  constructor(image: IndexImage, locks: LockFile, own: number) {
    this.#image = image;
    this.#locks = locks;
    this.#own = own;
  }

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
