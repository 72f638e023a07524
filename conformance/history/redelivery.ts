import type { HistoryEvent } from './events.js';

/**
 * The waits between a delivery that the receiver did not accept and the next delivery of the same message. They
 * show how long the target keeps a message back: the length of its leases, or its wait between two attempts.
 *
 * A wait in which a process of the target ended does not count. A crash often ends every lease, so that such a
 * wait says nothing about their length. For the same reason a refusal does not count if a crash came after its
 * delivery. So the waits do not bound a lease that survives its receiver: `undelivered.ts` judges such messages apart.
 */
export class RedeliveryWaits {
  /** Deliveries since the last crash: the time in ms of the history, and whether the receiver refused it. */
  readonly #deliveries = new Map<string, { atMs: number; refused: boolean }>();
  #longestMs: number | undefined;

  /** The longest wait so far, in milliseconds; undefined when the target has shown none. */
  get longestMs(): number | undefined {
    return this.#longestMs;
  }

  /** Takes the next event of the history. */
  observe(event: HistoryEvent): void {
    switch (event.kind) {
      case 'delivered': {
        if (event.id === null) break;
        const last = this.#deliveries.get(event.id);
        // Count from the delivery: a lease begins there.
        if (last?.refused === true) this.#longestMs = Math.max(this.#longestMs ?? 0, event.atMs - last.atMs);
        this.#deliveries.set(event.id, { atMs: event.atMs, refused: false });
        break;
      }
      case 'refused': {
        const last = event.id === null ? undefined : this.#deliveries.get(event.id);
        if (last !== undefined) last.refused = !event.permanent;
        break;
      }
      case 'consumed':
        if (event.id !== null) this.#deliveries.delete(event.id);
        break;
      case 'installed':
      case 'service-exited':
        this.#deliveries.clear();
        break;
      case 'fault':
        if (event.scope !== 'none') this.#deliveries.clear();
        break;
      default:
        break;
    }
  }
}
