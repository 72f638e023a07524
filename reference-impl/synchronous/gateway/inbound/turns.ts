/** Number of levels. A session of the last one has had 64 turns or more. */
const LEVELS = 8;
/** Number of sessions that continue in one turn of the event loop, as long as they need less than `QUANTUM_MS`. */
const SESSIONS_PER_TURN = 4;
/** Time in milliseconds after which no further session continues in the same turn of the event loop. */
const QUANTUM_MS = 1;
/** Of this number of turns, one goes to the session with the most work instead of the one with the least. */
const TURNS_PER_HEAVY_ONE = 4;

/**
 * The order in which sessions with much input continue (a multi-level feedback queue). A session that had few turns since
 * its last message comes before those that had many, so that a new message does not wait for a round of a thousand
 * floods. Every fourth turn goes to the highest level, so that large messages proceed as well. The event loop reads all
 * other sockets between the turns.
 */
export class Turns {
  readonly #levels: (() => void)[][] = Array.from({ length: LEVELS }, () => []);
  #count = 0;
  #waitingCount = 0;
  #isScheduled = false;

  /**
   * Calls `proceed` in one of the next turns.
   * @param turnsBefore number of turns that the session had, and more for one that makes errors
   */
  wait(turnsBefore: number, proceed: () => void): void {
    this.#levels[levelOf(turnsBefore)]?.push(proceed);
    this.#waitingCount += 1;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    let startedMs: number | undefined;
    // The work of a session is done in ticks after its callback, so each session has a callback of its own.
    for (let at = 0; at < SESSIONS_PER_TURN; at += 1) {
      setImmediate(() => {
        startedMs ??= performance.now();
        if (at > 0 && performance.now() - startedMs > QUANTUM_MS) return;
        const proceed = this.#take();
        if (at === 0) {
          this.#isScheduled = false;
          if (this.#waitingCount > 0) this.#schedule();
        }
        proceed?.();
      });
    }
  }

  #take(): (() => void) | undefined {
    this.#count += 1;
    const isHeavyOne = this.#count % TURNS_PER_HEAVY_ONE === 0;
    const isWaiting = (level: readonly unknown[]) => level.length > 0;
    const level = isHeavyOne ? this.#levels.findLast(isWaiting) : this.#levels.find(isWaiting);
    const proceed = level?.shift();
    if (proceed !== undefined) this.#waitingCount -= 1;
    return proceed;
  }
}

/** Returns the level of a session: each holds twice as many turns as the one before. */
const levelOf = (turnsBefore: number): number => Math.min(LEVELS - 1, 32 - Math.clz32(turnsBefore));
