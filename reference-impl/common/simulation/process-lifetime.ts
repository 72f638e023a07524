/** The error that is thrown through the code of a simulated process when it is killed. Later code has no effect. */
export class Killed extends Error {
  override readonly name = 'Killed';
}

/**
 * The lifetime of one simulated process. Every store into shared memory and every system call is a step. The
 * process can be killed before any step. The kill unwinds through `finally` blocks, but their first step
 * finds the process dead, so they change nothing.
 */
export class ProcessLifetime {
  alive = true;
  /** Number of steps so far. */
  steps = 0;
  #lastStep = Number.POSITIVE_INFINITY;
  #interruption: { at: number; by: () => boolean } | undefined;

  /** Lets the process take `steps` more steps and kills it before the next one. */
  killAfter(steps: number): void {
    this.#lastStep = this.steps + steps;
  }

  /** Cancels the kill that `killAfter` has set. */
  cancelKill(): void {
    this.#lastStep = Number.POSITIVE_INFINITY;
  }

  /**
   * Calls `by` once before a step, after `steps` more steps. If `by` returns false,
   * it is called again 8 steps later.
   */
  interruptAfter(steps: number, by: () => boolean): void {
    this.#interruption = { at: this.steps + steps, by };
  }

  /** Cancels the interruption. */
  clearInterruption(): void {
    this.#interruption = undefined;
  }

  #interrupt(by: () => boolean): void {
    this.#interruption = undefined;
    if (!by()) this.interruptAfter(8, by);
  }

  /** Whether the process dies before its next step. */
  get isNextStepFatal(): boolean {
    return this.alive && this.steps >= this.#lastStep;
  }

  /** Takes a step. @throws Killed when the process dies here or is dead */
  step(): void {
    if (this.alive && this.steps < this.#lastStep) {
      this.steps += 1;
      if (this.#interruption && this.steps >= this.#interruption.at) this.#interrupt(this.#interruption.by);
      return;
    }
    this.alive = false;
    throw new Killed();
  }
}
