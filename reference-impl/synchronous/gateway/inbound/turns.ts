/** Number of sessions that continue in one turn of the event loop. */
const SESSIONS_PER_TURN = 16;

/**
 * The order in which sessions with much input continue. Each waits until the sessions before it had their turn, and
 * the event loop reads all other sockets between two turns. Without it, a few clients with large messages or
 * thousands of commands would keep all others waiting.
 */
export class Turns {
  #waiting: (() => void)[] = [];
  #isScheduled = false;

  /** Calls `proceed` in one of the next turns. */
  wait(proceed: () => void): void {
    this.#waiting.push(proceed);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      for (const proceed of this.#waiting.splice(0, SESSIONS_PER_TURN)) proceed();
      if (this.#waiting.length > 0) this.#schedule();
    });
  }
}
