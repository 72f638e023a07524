/**
 * The bytes of messages that a worker keeps in memory before the queue has stored them, over all its sessions.
 * When the budget is used up, the largest message in progress gives way to a smaller one. A client that fills the
 * budget with large messages cannot keep out small ones then.
 */
export class MemoryBudget {
  readonly limitBytes: number;
  readonly #holdings = new Set<Holding>();
  #usedBytes = 0;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /**
   * Opens the holding of one message.
   * @param evict called when a smaller message needs the bytes; must call `release` of the holding.
   */
  open(evict: () => void): Holding {
    const holding = new Holding(this, evict);
    this.#holdings.add(holding);
    return holding;
  }

  /** Returns whether a message of this size could be taken now, if larger ones gave way. */
  hasRoomFor(sizeBytes: number): boolean {
    if (this.#usedBytes + sizeBytes <= this.limitBytes) return true;
    let freeBytes = this.limitBytes - this.#usedBytes;
    for (const holding of this.#holdings)
      if (!holding.isPinned && holding.sizeBytes > sizeBytes) freeBytes += holding.sizeBytes;
    return freeBytes >= sizeBytes;
  }

  /** Adds bytes to a holding; see `Holding.take`. */
  take(holding: Holding, sizeBytes: number): boolean {
    while (this.#usedBytes + sizeBytes > this.limitBytes) {
      const largest = this.#largestAbove(holding, holding.sizeBytes + sizeBytes);
      if (largest === undefined) return false;
      largest.evict();
      // An eviction that released nothing would be tried for ever.
      largest.release();
    }
    this.#usedBytes += sizeBytes;
    return true;
  }

  /** Subtracts bytes that a holding has given back. Only `Holding` calls this. */
  give(sizeBytes: number): void {
    this.#usedBytes -= sizeBytes;
  }

  /** Removes a holding. */
  close(holding: Holding): void {
    this.#holdings.delete(holding);
  }

  #largestAbove(taker: Holding, sizeBytes: number): Holding | undefined {
    let largest: Holding | undefined;
    for (const holding of this.#holdings) {
      if (holding === taker || holding.isPinned || holding.sizeBytes <= sizeBytes) continue;
      if (largest === undefined || holding.sizeBytes > largest.sizeBytes) largest = holding;
    }
    return largest;
  }
}

/** The part of the budget that one message uses, in bytes: for its envelope and its data. */
export class Holding {
  readonly #budget: MemoryBudget;
  readonly evict: () => void;
  /** True while the queue stores the message, which cannot give way then. */
  isPinned = false;
  #sizeBytes = 0;

  constructor(budget: MemoryBudget, evict: () => void) {
    this.#budget = budget;
    this.evict = evict;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Adds bytes. Returns false, and adds nothing, if the budget is used up by messages that are not larger. */
  take(sizeBytes: number): boolean {
    if (!this.#budget.take(this, sizeBytes)) return false;
    this.#sizeBytes += sizeBytes;
    return true;
  }

  /** Gives bytes back. */
  give(sizeBytes: number): void {
    this.#budget.give(sizeBytes);
    this.#sizeBytes -= sizeBytes;
  }

  /** Gives all bytes back and closes the holding. It may be called twice. */
  release(): void {
    this.give(this.#sizeBytes);
    this.#budget.close(this);
  }
}
