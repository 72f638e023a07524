import { setTimeout as pause } from 'node:timers/promises';
import { identifyDelivery } from '../identify-delivery.js';
import type { Receiver, ReceiverOptions } from '../protocol.js';
import { Hold } from './hold.js';
import { type Opener, retryPauseMs } from './openers.js';

/** One delivery that a server has pushed. */
export interface Delivery {
  readonly body: Buffer;
  /** Id of the message beside the body, such as a property; undefined when the protocol gives none. */
  readonly outsideId?: string | undefined;
  /** Acknowledges the delivery. Returns false if the connection has ended, so that nothing was sent. */
  accept(): boolean;
  /** Gives the message back. Returns a description of what is done. */
  refuse(permanent: boolean): string;
}

/** One connection over which a server pushes messages. */
export interface PushSource {
  /** Resolves when the connection has ended. */
  readonly ended: Promise<void>;
  /** Makes a round trip whose answer proves that the server has handled all acknowledgements before. */
  roundTrip(): Promise<void>;
  /** Closes the connection cleanly. Never rejects; may be called twice. */
  close(): Promise<void>;
}

/** Opens a connection and calls `onDelivery` for each delivery, also before it resolves. */
export type OpenPushSource = (onDelivery: (delivery: Delivery) => void) => Promise<PushSource>;

/** The state of one connection. */
interface Consumer {
  node: string | undefined;
  open: boolean;
  /** Undefined while the connection is being opened; deliveries may come by then. */
  source: PushSource | undefined;
  /**
   * Sequence numbers of the deliveries whose acknowledgements the server has not yet proven to have processed.
   */
  accepted: number[];
  /** The pending round trip that proves it for `accepted`; undefined when none is pending. */
  settling: Promise<void> | undefined;
}

/**
 * Receiver for protocols in which the server pushes messages and does not answer an acknowledgement. The
 * server's answer to a later request on the same connection proves that the server has processed the
 * acknowledgement, because the server processes the requests of a connection in order.
 */
export class PushReceiver implements Receiver {
  readonly sink = '';
  readonly #options: ReceiverOptions;
  readonly #stop = new AbortController();
  readonly #stopped: Promise<void>;
  readonly #deliveries = new Map<string, number>();
  readonly #consumers = new Set<Consumer>();
  readonly #loops: Promise<void>[];
  readonly #hold = new Hold();
  #undecidedCount = 0;

  /** @param openers functions that open a connection, at the start and again after a break. */
  constructor(openers: readonly Opener<OpenPushSource>[], options: ReceiverOptions) {
    this.#options = options;
    this.#stopped = new Promise((resolve) => {
      this.#stop.signal.addEventListener('abort', () => resolve());
    });
    this.#loops = openers.map((opener) => this.#loop(opener));
  }

  inDelivery(): number {
    let count = this.#undecidedCount;
    for (const { accepted } of this.#consumers) count += accepted.length;
    return count;
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

  async #loop(opener: Opener<OpenPushSource>): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        await this.#consume(opener);
      } catch {
        // The target is down, or the run is over. The condition of the loop decides.
      }
      await pause(retryPauseMs(opener.node), undefined, { signal }).catch(() => {});
    }
  }

  /** Consumes over one connection until it breaks or the run is over. */
  async #consume({ node, open }: Opener<OpenPushSource>): Promise<void> {
    const consumer: Consumer = { node, open: true, source: undefined, accepted: [], settling: undefined };
    this.#consumers.add(consumer);
    try {
      consumer.source = await open((delivery) => void this.#receive(consumer, delivery));
      await Promise.race([consumer.source.ended, this.#stopped]);
      await this.#settle(consumer);
    } finally {
      consumer.open = false;
      this.#consumers.delete(consumer);
      this.#reportSettled(consumer.accepted.splice(0), 'broken');
      await consumer.source?.close();
    }
  }

  async #receive(consumer: Consumer, delivery: Delivery): Promise<void> {
    const { receipts, replyFor } = this.#options;
    if (this.#stop.signal.aborted) return;
    const { intact: _, ...identity } = identifyDelivery(delivery.body, this.#options, delivery.outsideId);
    const { id } = identity;
    const sizeBytes = delivery.body.length;
    const sequence = receipts.delivered({
      ...identity,
      ...{ sizeBytes, recipients: [0] },
      ...(consumer.node === undefined ? {} : { node: consumer.node }),
    });
    const number = (this.#deliveries.get(id ?? '') ?? 0) + 1;
    this.#deliveries.set(id ?? '', number);
    const { answer, delayMs } = replyFor?.(id, number) ?? { answer: 'accept', delayMs: 0 };
    this.#undecidedCount += 1;
    try {
      if (delayMs > 0) await pause(delayMs);
      await this.#hold.untilReleased;
    } finally {
      this.#undecidedCount -= 1;
    }
    if (!consumer.open || (answer === 'accept' && !delivery.accept())) {
      receipts.refused(sequence, id, false, 'the connection broke before it was acknowledged');
    } else if (answer === 'accept') {
      receipts.consumed(sequence, id, 'accepted');
      consumer.accepted.push(sequence);
      void this.#settle(consumer);
    } else {
      const permanent = answer === 'never';
      receipts.refused(sequence, id, permanent, delivery.refuse(permanent));
    }
  }

  /**
   * Waits until the server has proven that it processed every acknowledgement, or the connection broke. Never
   * rejects.
   */
  #settle(consumer: Consumer): Promise<void> {
    consumer.settling ??= this.#awaitAcksSeen(consumer).finally(() => {
      consumer.settling = undefined;
    });
    return consumer.settling;
  }

  async #awaitAcksSeen({ source, accepted }: Consumer): Promise<void> {
    try {
      while (source !== undefined && accepted.length > 0) {
        const before = accepted.length;
        await source.roundTrip();
        this.#reportSettled(accepted.splice(0, before), 'known');
      }
    } catch {
      // The connection broke: `#consume` reports the remaining acknowledgements as broken.
    }
  }

  #reportSettled(sequences: number[], how: 'known' | 'broken'): void {
    if (sequences.length > 0) this.#options.receipts.settled(sequences, how);
  }
}
