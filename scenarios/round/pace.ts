/** Weight of the latest measurement of a fault against the earlier ones. */
const LATEST_WEIGHT = 0.5;

/**
 * What a run has learned about the duration of its own steps, in milliseconds. It plans the last injection of a
 * round with it, so that the drain and the stop still fit into the budget.
 */
export class Pace {
  readonly #injections = new Map<string, number>();
  #tailMs: number;
  #hasTail = false;

  /** @param initialTailMs what a tail is assumed to take until the first round has ended. */
  constructor(initialTailMs: number) {
    this.#tailMs = initialTailMs;
  }

  /** Notes how long an injection took, from the wait before the fault to the end of the recovery. */
  noteInjection(fault: string, ms: number): void {
    const earlierMs = this.#injections.get(fault) ?? ms;
    this.#injections.set(fault, LATEST_WEIGHT * ms + (1 - LATEST_WEIGHT) * earlierMs);
  }

  /** Notes how long a round took after its last recovery: drain, stop and evaluation. */
  noteTail(ms: number): void {
    this.#tailMs = this.#hasTail ? Math.max(this.#tailMs, ms) : ms;
    this.#hasTail = true;
  }

  /** Expected duration of an injection of this fault: its own, or the mean of the others; 0 before the first one. */
  injectionMs(fault: string): number {
    const own = this.#injections.get(fault);
    if (own !== undefined) return own;
    const all = [...this.#injections.values()];
    return all.length === 0 ? 0 : all.reduce((sum, ms) => sum + ms, 0) / all.length;
  }

  /** Expected time from the last recovery of a round to its verdict. */
  get tailMs(): number {
    return this.#tailMs;
  }
}
