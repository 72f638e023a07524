/** Memory that a body of one request takes besides its bytes. It bounds the number of small requests in flight. */
const OVERHEAD_BYTES = 1024;

/**
 * The memory of bodies that the store has not taken yet, over all connections. When it is used up, the largest body that
 * is still coming gives way to a smaller one: large bodies that never end cannot keep out small ones.
 */
export class BodyBudget {
  readonly limitBytes: number;
  readonly #coming = new Set<Holding>();
  #usedBytes = 0;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /**
   * Opens the holding of one body. Returns undefined if a body of `sizeBytes` has no room.
   * @param giveWay called when a smaller body needs the memory; the holding is closed then
   */
  open(sizeBytes: number, giveWay: () => void): Holding | undefined {
    const holding = new Holding(this, giveWay);
    if (!this.#hasRoomFor(sizeBytes + OVERHEAD_BYTES) || !this.take(holding, OVERHEAD_BYTES))
      return undefined;
    this.#coming.add(holding);
    return holding;
  }

  /** Adds bytes to a holding; see `Holding.take`. */
  take(holding: Holding, sizeBytes: number): boolean {
    while (this.#usedBytes + sizeBytes > this.limitBytes) {
      const largest = this.#largestAbove(holding, holding.sizeBytes + sizeBytes);
      if (largest === undefined) return false;
      largest.close();
      largest.giveWay();
    }
    this.#usedBytes += sizeBytes;
    holding.sizeBytes += sizeBytes;
    return true;
  }

  /** The body is whole, and the store has it: it gives way to no other. */
  pin(holding: Holding): void {
    this.#coming.delete(holding);
  }

  /** Gives all bytes of a holding back. */
  close(holding: Holding): void {
    this.#coming.delete(holding);
    this.#usedBytes -= holding.sizeBytes;
    holding.sizeBytes = 0;
  }

  #hasRoomFor(sizeBytes: number): boolean {
    let freeBytes = this.limitBytes - this.#usedBytes;
    if (freeBytes >= sizeBytes) return true;
    for (const other of this.#coming) if (other.sizeBytes > sizeBytes) freeBytes += other.sizeBytes;
    return freeBytes >= sizeBytes;
  }

  #largestAbove(taker: Holding, sizeBytes: number): Holding | undefined {
    let largest: Holding | undefined;
    for (const other of this.#coming) {
      if (other === taker || other.sizeBytes <= sizeBytes) continue;
      if (largest === undefined || other.sizeBytes > largest.sizeBytes) largest = other;
    }
    return largest;
  }
}

/** The part of the budget that one body uses. */
export class Holding {
  readonly #budget: BodyBudget;
  readonly giveWay: () => void;
  sizeBytes = 0;

  constructor(budget: BodyBudget, giveWay: () => void) {
    this.#budget = budget;
    this.giveWay = giveWay;
  }

  /** Adds bytes. Returns false, and adds nothing, if bodies that are not larger have used up the budget. */
  take(sizeBytes: number): boolean {
    return this.#budget.take(this, sizeBytes);
  }

  /** Keeps the bytes until `close`, whatever comes. */
  pin(): void {
    this.#budget.pin(this);
  }

  /** Gives all bytes back. It may be called twice. */
  close(): void {
    this.#budget.close(this);
  }
}
