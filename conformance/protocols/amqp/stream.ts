import type { Address } from '../address.js';
import { openersFor } from '../client/openers.js';
import {
  type Delivery,
  type OpenPushSource,
  PushReceiver,
  type PushSource,
} from '../client/push-receiver.js';
import { connectProducer } from '../client/session.js';
import { withTimeout } from '../client/timeout.js';
import type { Protocol } from '../protocol.js';
import { amqpReady, amqpSession, QUEUE, type ReadyTest } from './client.js';
import { type Arrival, openConsumer } from './consumer.js';

/** Greatest number of unacknowledged deliveries of the consumer. The server demands a limit for a stream. */
const PREFETCH = 8;
/** Time without a delivery after which the next node is read, in ms: this one may be stopped or isolated. */
const IDLE_MS = 3000;
const LOOK_INTERVAL_MS = 500;
/** `message-id` of the empty messages by which `ready` asks whether the stream has a leader. */
const READY_ID = 'plugpull-ready';

/**
 * A stream of RabbitMQ over AMQP 0-9-1. A stream keeps the messages that were consumed, so the receiver itself notes
 * which those are.
 */
export const amqpStream: Protocol = {
  name: 'amqp-stream',
  connect: (address, options) => connectProducer(amqpSession, address, options?.timeoutMs),
  ready: (address, timeoutMs, { replicas = 1 } = {}) =>
    amqpReady(address, timeoutMs, { queueArguments: queueArguments(replicas), test: publishOne }),
  async receive(addresses, options) {
    const reader = new StreamReader(addresses.length, options.inOrder ? 1 : PREFETCH);
    let index = 0;
    return new PushReceiver(
      openersFor(addresses, 1, (address) => reader.opener(address, index++)),
      options,
    );
  },
};

function queueArguments(replicas: number): Record<string, unknown> {
  return { 'x-queue-type': 'stream', ...(replicas === 1 ? {} : { 'x-initial-cluster-size': replicas }) };
}

/** Publishes an empty message: `basic.get` does not exist for a stream, and one without a leader confirms nothing. */
const publishOne: ReadyTest = async (connection, timeoutMs) => {
  const channel = await withTimeout(connection.createConfirmChannel(), timeoutMs);
  channel.on('error', () => {});
  channel.publish('', QUEUE, Buffer.alloc(0), { persistent: true, messageId: READY_ID });
  await withTimeout(channel.waitForConfirms(), timeoutMs);
};

/**
 * Reads a stream over one connection at a time: each consumer of a stream gets all messages.
 */
class StreamReader {
  readonly #connections: number;
  readonly #prefetch: number;
  /** Number of the connection that may read, from 0. */
  #turn = 0;
  /** Keys of the messages that the receiver has accepted or refused permanently. */
  readonly #done = new Set<string>();
  /**
   * Offset from which the next connection reads. After a break it is the first: the stream may have lost its end and
   * have other messages at the same offsets now.
   */
  #from: number | 'first' = 'first';

  constructor(connections: number, prefetch: number) {
    this.#connections = connections;
    this.#prefetch = prefetch;
  }

  /** Returns the function that opens the connection of this number. The function rejects while another connection may read. */
  opener(address: Address, number: number): OpenPushSource {
    return async (onDelivery) => {
      if (this.#turn !== number) throw new Error('another connection reads the stream');
      try {
        return await this.#open(address, onDelivery);
      } catch (error) {
        this.#passOn();
        throw error;
      }
    };
  }

  #passOn(): void {
    this.#turn = (this.#turn + 1) % this.#connections;
  }

  async #open(address: Address, onDelivery: (delivery: Delivery) => void): Promise<PushSource> {
    const from = this.#from;
    this.#from = 'first';
    let lastMs = performance.now();
    let next = from;
    const undecided = new Set<Arrival>();
    let end = () => {};
    const source = await openConsumer(address, {
      prefetch: this.#prefetch,
      arguments: { 'x-stream-offset': from },
      onArrival: (arrival) => {
        lastMs = performance.now();
        end = arrival.end;
        const offset = offsetOf(arrival);
        next = offset + 1;
        const key = `${offset} ${arrival.messageId}`;
        if (arrival.messageId === READY_ID || this.#done.has(key)) {
          arrival.channel.ack(arrival.message);
          return;
        }
        undecided.add(arrival);
        onDelivery(this.#deliveryOf(arrival, key, () => undecided.delete(arrival)));
      },
    });
    let isIdle = () => {};
    const idle = new Promise<void>((resolve) => {
      isIdle = resolve;
    });
    const look = setInterval(() => {
      if (this.#connections === 1 || undecided.size > 0 || performance.now() - lastMs < IDLE_MS) return;
      this.#from = next;
      end();
      isIdle();
    }, LOOK_INTERVAL_MS);
    const ended = Promise.race([source.ended, idle]).then(() => {
      clearInterval(look);
      this.#passOn();
    });
    const close = () => {
      clearInterval(look);
      return source.close();
    };
    return { ended, roundTrip: source.roundTrip, close };
  }

  #deliveryOf(
    { message, channel, messageId, isOpen, end }: Arrival,
    key: string,
    decided: () => void,
  ): Delivery {
    return {
      body: message.content,
      outsideId: messageId,
      accept: () => {
        decided();
        if (!isOpen()) return false;
        channel.ack(message);
        this.#done.add(key);
        return true;
      },
      refuse: (permanent) => {
        decided();
        if (permanent) {
          this.#done.add(key);
          if (isOpen()) channel.ack(message);
          return 'the message is left in the stream';
        }
        // The server does not deliver a message of a stream again to the same consumer.
        end();
        return 'the connection is closed, and the stream is read again';
      },
    };
  }
}

function offsetOf({ message }: Arrival): number {
  const offset = message.properties.headers?.['x-stream-offset'] as unknown;
  if (typeof offset !== 'number') throw new Error(`expected x-stream-offset, found ${offset}`);
  return offset;
}
