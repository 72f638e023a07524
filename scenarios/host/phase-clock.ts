/** The duration of a run and of each of its phases, in milliseconds. */
export interface TimeReport {
  budgetMs: number;
  tookMs: number;
  /** Time by phase, in the order in which the phases first began. The sum is `tookMs`. */
  phasesMs: Record<string, number>;
  /** The part of `phasesMs` that came after the end of the budget; null when the budget held. */
  overrunMs: Record<string, number> | null;
}

/**
 * Measures how long a run is in each of its phases. Exactly one phase is current at any moment: a phase that
 * begins inside another one interrupts it.
 */
export class PhaseClock<Phase extends string> {
  readonly #budgetMs: number;
  readonly #nowMs: () => number;
  readonly #startMs: number;
  readonly #total = new Map<Phase, number>();
  readonly #late = new Map<Phase, number>();
  #current: Phase;
  #sinceMs: number;

  /**
   * @param first the phase that is current from now on.
   * @param nowMs clock in milliseconds; default: `performance.now`.
   */
  constructor(first: Phase, budgetMs = Number.POSITIVE_INFINITY, nowMs = () => performance.now()) {
    this.#budgetMs = budgetMs;
    this.#nowMs = nowMs;
    this.#startMs = nowMs();
    this.#current = first;
    this.#sinceMs = this.#startMs;
  }

  /** Runs `work` as a phase. The phase before it is current again when the work has ended or failed. */
  async during<T>(phase: Phase, work: () => T | Promise<T>): Promise<T> {
    const before = this.#current;
    this.#enter(phase);
    try {
      return await work();
    } finally {
      this.#enter(before);
    }
  }

  report(): TimeReport {
    this.#enter(this.#current);
    const tookMs = Math.round(this.#sinceMs - this.#startMs);
    const late = toRecord(this.#late);
    return {
      budgetMs: this.#budgetMs,
      tookMs,
      phasesMs: toRecord(this.#total),
      overrunMs: Object.keys(late).length === 0 ? null : late,
    };
  }

  #enter(phase: Phase): void {
    const nowMs = this.#nowMs();
    const endMs = this.#startMs + this.#budgetMs;
    add(this.#total, this.#current, nowMs - this.#sinceMs);
    add(this.#late, this.#current, nowMs - Math.max(this.#sinceMs, endMs));
    this.#current = phase;
    this.#sinceMs = nowMs;
  }
}

function add<Phase>(times: Map<Phase, number>, phase: Phase, ms: number): void {
  if (ms > 0) times.set(phase, (times.get(phase) ?? 0) + ms);
}

/** Rounds the times, and leaves out those below half a millisecond. */
function toRecord(times: ReadonlyMap<string, number>): Record<string, number> {
  return Object.fromEntries(
    [...times].map(([phase, ms]) => [phase, Math.round(ms)] as const).filter(([, ms]) => ms > 0),
  );
}
