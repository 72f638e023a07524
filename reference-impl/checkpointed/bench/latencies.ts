/** Latencies of some commits, in milliseconds. */
export interface LatencyFigures {
  count: number;
  p50Ms: number;
  p99Ms: number;
}

/** Collects the latencies of commits: of those that a checkpoint fell into, and of the others. */
export class Latencies {
  readonly #during: number[] = [];
  readonly #outside: number[] = [];

  /** Adds one commit. */
  add(latencyMs: number, isDuringCheckpoint: boolean): void {
    (isDuringCheckpoint ? this.#during : this.#outside).push(latencyMs);
  }

  /** Number of all commits. */
  get count(): number {
    return this.#during.length + this.#outside.length;
  }

  /** Figures of the commits that a checkpoint fell into. */
  during(): LatencyFigures {
    return figuresOf(this.#during);
  }

  /** Figures of the other commits. */
  outside(): LatencyFigures {
    return figuresOf(this.#outside);
  }
}

function figuresOf(latenciesMs: readonly number[]): LatencyFigures {
  const sorted = Float64Array.from(latenciesMs).sort();
  const at = (share: number): number => sorted[Math.floor(share * (sorted.length - 1))] ?? 0;
  return { count: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99) };
}
