import { Agent } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { identify } from '../message.js';
import type { Receiver, ReceiverOptions } from '../protocol.js';
import { exchange, type Response } from './exchange.js';

/** The target may hold a request for a lease so long before it says that there is nothing. */
const WAIT_MS = 500;
const ANSWER_TIMEOUT_MS = 10_000;
/** Between tries while the target is down. */
const RETRY_MS = 20;
const LEASES_AT_A_TIME = 2;

/** The receiver of targets that are pulled from: leases messages, and deletes the leases of those it takes. */
export class HttpConsumer implements Receiver {
  readonly sink = '';
  readonly #options: ReceiverOptions;
  readonly #stop = new AbortController();
  readonly #agent = new Agent({ keepAlive: true });
  readonly #deliveries = new Map<string, number>();
  readonly #loops: Promise<void>[];
  #held: Promise<void> | undefined;
  #release = () => {};
  #inDelivery = 0;

  constructor(ports: readonly number[], options: ReceiverOptions) {
    this.#options = options;
    const perPort = Array.from({ length: LEASES_AT_A_TIME }, () => ports).flat();
    this.#loops = perPort.map((port) => this.#consume(port));
  }

  inDelivery(): number {
    return this.#inDelivery;
  }

  hold(): void {
    this.#held ??= new Promise((resolve) => {
      this.#release = resolve;
    });
  }

  release(): void {
    this.#held = undefined;
    this.#release();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.release();
    await Promise.all(this.#loops);
    this.#agent.destroy();
  }

  async #consume(port: number): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await this.#held;
      try {
        const path = `/leases?wait=${WAIT_MS}`;
        const leased = await this.#call(port, 'POST', path, ANSWER_TIMEOUT_MS + WAIT_MS, signal);
        if (leased.status === 200) await this.#take(port, leased);
        else if (leased.status !== 204) await pause(RETRY_MS, undefined, { signal });
      } catch {
        // The target is down, or the run is over; the loop's condition knows which.
        await pause(RETRY_MS, undefined, { signal }).catch(() => {});
      }
    }
  }

  async #take(port: number, leased: Response): Promise<void> {
    const { receipts, run, reception } = this.#options;
    const { id, digest } = identify(leased.body, run);
    const sequence = receipts.delivered({ id, sizeBytes: leased.body.length, digest, recipients: [0] });
    const delivery = (this.#deliveries.get(id ?? '') ?? 0) + 1;
    this.#deliveries.set(id ?? '', delivery);
    const { answer, delayMs } = reception?.(id, delivery) ?? { answer: 'accept', delayMs: 0 };
    this.#inDelivery += 1;
    try {
      if (delayMs > 0) await pause(delayMs);
      await this.#held;
      if (answer === 'accept') await this.#delete(port, String(leased.headers.lease ?? ''), sequence, id);
      else receipts.refused(sequence, id, answer === 'never', 'the lease was left to itself');
    } finally {
      this.#inDelivery -= 1;
    }
  }

  /** Not under the signal of `close`: a deletion under way is waited for, so that its end is known. */
  async #delete(port: number, lease: string, sequence: number, id: string | null): Promise<void> {
    const { receipts } = this.#options;
    try {
      const { status } = await this.#call(
        port,
        'DELETE',
        `/leases/${encodeURIComponent(lease)}`,
        ANSWER_TIMEOUT_MS,
      );
      if (status === 204) receipts.consumed(sequence, id, 'answered');
      else if (status === 404 || status === 410)
        receipts.refused(sequence, id, false, `lease gone: ${status}`);
      else receipts.consumed(sequence, id, 'unanswered');
    } catch {
      // The target was gone before it answered: the message may come again, or not.
      receipts.consumed(sequence, id, 'unanswered');
    }
  }

  #call(port: number, method: 'POST' | 'DELETE', path: string, timeoutMs: number, signal?: AbortSignal) {
    return exchange({ agent: this.#agent, port, method, path, timeoutMs, ...(signal ? { signal } : {}) });
  }
}
