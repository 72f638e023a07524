/**
 * Number of sessions that continue in one turn of the event loop, by their weight. A turn reads up to 128 KiB of each
 * session, and every step of every other session waits for the turn.
 */
const SESSIONS_PER_TURN = { light: 4, heavy: 2 };

/** `heavy`: a session in a large message. It does not delay the others. */
export type Weight = keyof typeof SESSIONS_PER_TURN;

/**
 * The order in which sessions with much input continue. Each waits until the sessions of its weight before it had their
 * turn, and the event loop reads all other sockets between two turns. Without it, a few clients with large messages or
 * thousands of commands would keep all others waiting.
 */
export class Turns {
  readonly #waiting: Record<Weight, (() => void)[]> = { light: [], heavy: [] };
  #isScheduled = false;

  /** Calls `proceed` in one of the next turns. */
  wait(weight: Weight, proceed: () => void): void {
    this.#waiting[weight].push(proceed);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      const { light, heavy } = this.#waiting;
      const turn = [...light.splice(0, SESSIONS_PER_TURN.light), ...heavy.splice(0, SESSIONS_PER_TURN.heavy)];
      if (light.length + heavy.length > 0) this.#schedule();
      for (const proceed of turn) proceed();
    });
  }
}
