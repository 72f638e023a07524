import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import type { Channel, ConsumeMessage } from 'amqplib';
import { connectProducer } from '../client/session.js';
import { withTimeout } from '../client/timeout.js';
import { identifyDelivery } from '../identify-delivery.js';
import type { Protocol, Receiver, ReceiverOptions } from '../protocol.js';
import { amqpReady, amqpSession, closeAmqp, openAmqp, QUEUE } from './client.js';

/**
 * AMQP 0-9-1 with RabbitMQ's extensions: publisher confirms for submits, manual acknowledgements for
 * deliveries.
 */
export const amqp: Protocol = {
  name: 'amqp',
  connect: (port, options) => connectProducer(amqpSession, port, options?.timeoutMs),
  ready: amqpReady,
  receive: async (ports, options) => new AmqpReceiver(ports, options),
};

const CONSUMERS = 2;
/** Greatest number of unacknowledged deliveries of a consumer. */
const PREFETCH = 8;
const ANSWER_TIMEOUT_MS = 10_000;
/** Pause between attempts to connect while the target is down. */
const RETRY_MS = 20;

/** One consumer: its channel, and the acknowledgements that the server has not yet proven to have processed. */
interface Consumer {
  channel: Channel;
  open: boolean;
  /**
   * Sequence numbers of the deliveries whose acknowledgements the server has not yet proven to have
   * processed.
   */
  accepted: number[];
  /**
   * The pending round trip whose answer proves that the server has processed the acknowledgements of
   * `accepted`; undefined when none is pending.
   */
  settling: Promise<void> | undefined;
}

/**
 * Receives pushed messages and acknowledges each one. The protocol has no answer to an acknowledgement. The
 * server's answer to a later request on the same channel proves that the server has processed the
 * acknowledgement, because the server processes a channel in order.
 */
class AmqpReceiver implements Receiver {
  readonly sink = '';
  readonly #options: ReceiverOptions;
  readonly #stop = new AbortController();
  readonly #deliveries = new Map<string, number>();
  readonly #consumers = new Set<Consumer>();
  readonly #loops: Promise<void>[];
  #untilReleased: Promise<void> | undefined;
  #release = () => {};
  #undecidedCount = 0;

  constructor(ports: readonly number[], options: ReceiverOptions) {
    this.#options = options;
    const each = Array.from({ length: CONSUMERS }, () => ports).flat();
    this.#loops = each.map((port) => this.#loop(port));
  }

  inDelivery(): number {
    let count = this.#undecidedCount;
    for (const { accepted } of this.#consumers) count += accepted.length;
    return count;
  }

  hold(): void {
    this.#untilReleased ??= new Promise((resolve) => {
      this.#release = resolve;
    });
  }

  release(): void {
    this.#untilReleased = undefined;
    this.#release();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.release();
    await Promise.all(this.#loops);
  }

  async #loop(port: number): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        await this.#consume(port);
      } catch {
        // The target is down, or the run is over. The condition of the loop decides.
      }
      await pause(RETRY_MS, undefined, { signal }).catch(() => {});
    }
  }

  /** Consumes over one connection until it breaks or the run is over. */
  async #consume(port: number): Promise<void> {
    const connection = await openAmqp(port, ANSWER_TIMEOUT_MS);
    const closed = new AbortController();
    connection.on('close', () => closed.abort());
    try {
      const channel = await withTimeout(connection.createChannel(), ANSWER_TIMEOUT_MS);
      channel.on('error', () => {});
      channel.on('close', () => closed.abort());
      await withTimeout(channel.prefetch(PREFETCH), ANSWER_TIMEOUT_MS);
      const consumer: Consumer = { channel, open: true, accepted: [], settling: undefined };
      this.#consumers.add(consumer);
      const ended = AbortSignal.any([closed.signal, this.#stop.signal]);
      const end = once(ended, 'abort');
      try {
        await withTimeout(
          channel.consume(QUEUE, (message) => {
            // Null: the server cancelled the consumer because the queue is gone.
            if (message === null) closed.abort();
            else void this.#receive(consumer, message);
          }),
          ANSWER_TIMEOUT_MS,
        );
        if (!ended.aborted) await end;
        if (!closed.signal.aborted) await this.#settle(consumer);
      } finally {
        consumer.open = false;
        this.#consumers.delete(consumer);
        this.#reportSettled(consumer.accepted.splice(0), 'broken');
      }
    } finally {
      await closeAmqp(connection);
    }
  }

  async #receive(consumer: Consumer, message: ConsumeMessage): Promise<void> {
    const { receipts, replyFor: reception } = this.#options;
    if (this.#stop.signal.aborted) return;
    const messageId = message.properties.messageId as unknown;
    const { intact: _, ...identity } = identifyDelivery(
      message.content,
      this.#options,
      typeof messageId === 'string' ? messageId : undefined,
    );
    const { id } = identity;
    const sizeBytes = message.content.length;
    const sequence = receipts.delivered({ ...identity, sizeBytes, recipients: [0] });
    const delivery = (this.#deliveries.get(id ?? '') ?? 0) + 1;
    this.#deliveries.set(id ?? '', delivery);
    const { answer, delayMs } = reception?.(id, delivery) ?? { answer: 'accept', delayMs: 0 };
    this.#undecidedCount += 1;
    try {
      if (delayMs > 0) await pause(delayMs);
      await this.#untilReleased;
    } finally {
      this.#undecidedCount -= 1;
    }
    if (!consumer.open) {
      receipts.refused(sequence, id, false, 'the connection broke before it was acknowledged');
    } else if (answer === 'accept') {
      consumer.channel.ack(message);
      receipts.consumed(sequence, id, 'accepted');
      consumer.accepted.push(sequence);
      void this.#settle(consumer);
    } else {
      const requeue = answer !== 'never';
      consumer.channel.nack(message, false, requeue);
      receipts.refused(sequence, id, !requeue, `basic.nack, requeue ${requeue}`);
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

  async #awaitAcksSeen({ channel, accepted }: Consumer): Promise<void> {
    try {
      while (accepted.length > 0) {
        const before = accepted.length;
        await withTimeout(channel.checkQueue(QUEUE), ANSWER_TIMEOUT_MS);
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
