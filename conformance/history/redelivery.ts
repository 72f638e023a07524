import type { HistoryEvent } from './events.js';

/**
 * The waits between a delivery that the receiver did not accept and the next delivery of the same message. They
 * show how long the target keeps a message back: the length of its leases, or its wait between two attempts.
 *
 * A wait in which a process of the target ended does not count. A crash often ends every lease, so that such a
 * wait says nothing about their length.
 */
export class RedeliveryWaits {
  /** Time at which the receiver did not accept a delivery, by message id, in ms of the history. */
  readonly #openMs = new Map<string, number>();
  #longestMs: number | undefined;

  /** The longest wait so far, in milliseconds; undefined when the target has shown none. */
  get longestMs(): number | undefined {
    return this.#longestMs;
  }

  /** Takes the next event of the history. */
  observe(event: HistoryEvent): void {
    switch (event.kind) {
      case 'refused':
        if (event.id !== null && !event.permanent) this.#openMs.set(event.id, event.atMs);
        break;
      case 'delivered': {
        if (event.id === null) break;
        const openMs = this.#openMs.get(event.id);
        this.#openMs.delete(event.id);
        if (openMs !== undefined) this.#longestMs = Math.max(this.#longestMs ?? 0, event.atMs - openMs);
        break;
      }
      case 'installed':
      case 'service-exited':
        this.#openMs.clear();
        break;
      case 'fault':
        if (event.scope !== 'none') this.#openMs.clear();
        break;
      default:
        break;
    }
  }
}
