// Reports what the set-up does. It is plain Node, because it runs before anything is installed.

/** Time without a line, in milliseconds, after which the state of the running steps is reported. */
export const MAX_SILENCE_MS = 3500;
const TICK_MS = 500;

/** The steps that run, and the lines about them. A step reports itself when nothing else was printed for a while. */
export class Progress {
  #steps = new Set();
  #lastLineMs;
  #timer;
  #hasStatus = false;

  /**
   * @param {{ write(text: string): void, isTerminal: boolean, columns?: number, nowMs?: () => number }} output
   *   On a terminal the state is one line that is rewritten in place.
   */
  constructor({ write, isTerminal, columns = 80, nowMs = Date.now }) {
    this.write = write;
    this.isTerminal = isTerminal;
    this.columns = columns;
    this.nowMs = nowMs;
    this.#lastLineMs = nowMs();
  }

  /** Prints a line that stays. */
  say(line) {
    this.#clearStatus();
    this.write(`plugpull setup: ${line}\n`);
    this.#lastLineMs = this.nowMs();
  }

  /**
   * Reports a step until it ends: its first line now, and then its state.
   * @param {string} line what the step does.
   * @param {(elapsedMs: number) => string} describe the state of the step in a few words.
   */
  async during(line, describe, work) {
    this.say(line);
    const startMs = this.nowMs();
    const step = () => describe(this.nowMs() - startMs);
    this.#steps.add(step);
    this.#timer ??= setInterval(() => this.tick(), TICK_MS);
    try {
      return await work();
    } finally {
      this.#steps.delete(step);
      if (this.#steps.size === 0) {
        clearInterval(this.#timer);
        this.#timer = undefined;
        this.#clearStatus();
      }
    }
  }

  /** Reports the steps if nothing was printed for a while; on a terminal always. The timer calls it. */
  tick() {
    if (this.#steps.size === 0) return;
    if (!this.isTerminal && this.nowMs() - this.#lastLineMs < MAX_SILENCE_MS) return;
    const text = [...this.#steps].map((step) => step()).join('; ');
    if (!this.isTerminal) return this.say(text);
    this.write(`\r\x1b[K${`plugpull setup: ${text}`.slice(0, Math.max(1, this.columns - 1))}`);
    this.#hasStatus = true;
  }

  #clearStatus() {
    if (this.#hasStatus) this.write('\r\x1b[K');
    this.#hasStatus = false;
  }
}

/** Formats a time as whole seconds. */
export const seconds = (ms) => `${Math.round(ms / 1000)} s`;

/**
 * Formats the time that is left of a step. `done` of its `all` parts are done. Returns '' while too little is known.
 */
export function timeLeft(elapsedMs, done, all) {
  if (elapsedMs < 2000 || done <= 0 || done >= all) return '';
  return `, about ${seconds((elapsedMs * (all - done)) / done)} left`;
}
