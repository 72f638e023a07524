/** Thrown through the code of a simulated process when it is killed: nothing behind the throw has any effect any more. */
export class Killed extends Error {
  override readonly name = 'Killed';
}

/**
 * The life of one simulated process. Every store into shared memory and every system call of it is a step, and it can be
 * killed in front of any of them. `finally` blocks that run while a kill unwinds find the process dead at their first
 * step, so they change nothing.
 */
export class ProcessLifetime {
  alive = true;
  /** Steps taken so far. */
  steps = 0;
  #lastStep = Number.POSITIVE_INFINITY;
  #interruption: { at: number; by: () => boolean } | undefined;

  /** Dies in front of the n-th step from now; 0: the next one. */
  killAfter(steps: number): void {
    this.#lastStep = this.steps + steps;
  }

  /** After so many steps others come in between, in front of the first step at which `by` does not refuse. */
  interruptAfter(steps: number, by: () => boolean): void {
    this.#interruption = { at: this.steps + steps, by };
  }

  /** Nobody comes in between any more. */
  clearInterruption(): void {
    this.#interruption = undefined;
  }

  #interrupt(by: () => boolean): void {
    this.#interruption = undefined;
    if (!by()) this.interruptAfter(8, by);
  }

  /** Will the next step be the one that it does not survive? */
  get isNextStepFatal(): boolean {
    return this.alive && this.steps >= this.#lastStep;
  }

  /** @throws Killed instead of a step of the dead. */
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
