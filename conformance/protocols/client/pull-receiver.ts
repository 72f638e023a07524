import { setMaxListeners } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { identifyDelivery } from '../identify-delivery.js';
import type { Receiver, ReceiverOptions } from '../protocol.js';
import { Hold } from './hold.js';
import { type Opener, retryPauseMs } from './openers.js';

/** One message that the target has delivered and that no other consumer gets meanwhile. */
export interface Lease {
  readonly body: Buffer;
  /** Id of the message, if the protocol gives it beside the body. */
  readonly messageId?: string | undefined;
  /**
   * Consumes the message. Resolves to undefined if the target answered that it is consumed, or to the target's
   * answer if the lease is gone. Rejects without a clear answer: the message may then come again, or not.
   */
  consume(): Promise<string | undefined>;
  /** Returns the message to the target. Resolves to a description of what was done. */
  giveBack(): Promise<string>;
}

/** One connection of a receiver that fetches messages. */
export interface LeaseSource {
  /** Waits a short time for a message. Rejects if the connection cannot be used any more. */
  next(): Promise<Lease | undefined>;
  /** Closes the connection, so that a `next` under way rejects soon. Never throws. */
  close(): void;
}

/**
 * Receiver for protocols in which the receiver asks for messages: several loops that each fetch a message, hold
 * it, and consume it.
 */
export class PullReceiver implements Receiver {
  readonly sink = '';
  readonly #options: ReceiverOptions;
  readonly #stop = new AbortController();
  readonly #deliveries = new Map<string, number>();
  readonly #loops: Promise<void>[];
  readonly #hold = new Hold();
  #inDelivery = 0;

  /**
   * @param openers functions that open a connection, one for each loop. A loop calls its function at the
   * start and again after a break.
   */
  constructor(openers: readonly Opener<() => Promise<LeaseSource>>[], options: ReceiverOptions) {
    this.#options = options;
    // Each loop listens while it waits, and a cluster has many.
    setMaxListeners(0, this.#stop.signal);
    this.#loops = openers.map((opener) => this.#loop(opener));
  }

  inDelivery(): number {
    return this.#inDelivery;
  }

  hold(): void {
    this.#hold.begin();
  }

  release(): void {
    this.#hold.end();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.release();
    await Promise.all(this.#loops);
  }

  async #loop({ node, open }: Opener<() => Promise<LeaseSource>>): Promise<void> {
    const { signal } = this.#stop;
    let source: LeaseSource | undefined;
    const stopWaiting = () => source?.close();
    while (!signal.aborted) {
      await this.#hold.untilReleased;
      try {
        source ??= await open();
        signal.addEventListener('abort', stopWaiting);
        const lease = await source.next();
        signal.removeEventListener('abort', stopWaiting);
        if (lease !== undefined) await this.#receive(lease, node);
      } catch {
        // The target is down, or the run is over. The condition of the loop decides.
        source?.close();
        source = undefined;
        await pause(retryPauseMs(node), undefined, { signal }).catch(() => {});
      }
    }
    source?.close();
  }

  async #receive(lease: Lease, node: string | undefined): Promise<void> {
    const { receipts, replyFor: reception } = this.#options;
    const { intact: _, ...identity } = identifyDelivery(lease.body, this.#options, lease.messageId);
    const { id } = identity;
    const sequence = receipts.delivered({
      ...identity,
      ...{ sizeBytes: lease.body.length, recipients: [0] },
      ...(node === undefined ? {} : { node }),
    });
    const delivery = (this.#deliveries.get(id ?? '') ?? 0) + 1;
    this.#deliveries.set(id ?? '', delivery);
    const { answer, delayMs } = reception?.(id, delivery) ?? { answer: 'accept', delayMs: 0 };
    this.#inDelivery += 1;
    try {
      if (delayMs > 0) await pause(delayMs);
      await this.#hold.untilReleased;
      if (answer === 'accept') await this.#consume(lease, sequence, id);
      else await this.#giveBack(lease, sequence, id, answer === 'never');
    } finally {
      this.#inDelivery -= 1;
    }
  }

  /** Consumes a message. `close` waits for the consumption, so that its result is known. */
  async #consume(lease: Lease, sequence: number, id: string | null): Promise<void> {
    const { receipts } = this.#options;
    let gone: string | undefined;
    try {
      gone = await lease.consume();
    } catch (error) {
      // The target was gone before it answered, so the message may come again, or not.
      receipts.consumed(sequence, id, 'unanswered');
      throw error;
    }
    if (gone === undefined) receipts.consumed(sequence, id, 'answered');
    else receipts.refused(sequence, id, false, `lease gone: ${gone}`);
  }

  async #giveBack(lease: Lease, sequence: number, id: string | null, permanent: boolean): Promise<void> {
    const { receipts } = this.#options;
    try {
      receipts.refused(sequence, id, permanent, await lease.giveBack());
    } catch (error) {
      receipts.refused(sequence, id, permanent, 'the connection broke');
      throw error;
    }
  }
}
