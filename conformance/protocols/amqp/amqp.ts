import type { Channel, ConsumeMessage } from 'amqplib';
import type { Address } from '../address.js';
import { openersFor } from '../client/openers.js';
import { type Delivery, type OpenPushSource, PushReceiver } from '../client/push-receiver.js';
import { connectProducer } from '../client/session.js';
import { withTimeout } from '../client/timeout.js';
import type { Protocol } from '../protocol.js';
import { amqpReady, amqpSession, closeAmqp, openAmqp, QUEUE } from './client.js';

/**
 * AMQP 0-9-1 with RabbitMQ's extensions: publisher confirms for submits, manual acknowledgements for
 * deliveries.
 */
export const amqp: Protocol = {
  name: 'amqp',
  connect: (address, options) => connectProducer(amqpSession, address, options?.timeoutMs),
  ready: amqpReady,
  async receive(addresses, options) {
    const [count, prefetch] = options.inOrder ? [1, 1] : [CONSUMERS, PREFETCH];
    return new PushReceiver(
      openersFor(addresses, count, (address) => openSource(address, prefetch)),
      options,
    );
  },
};

const CONSUMERS = 2;
/** Greatest number of unacknowledged deliveries of a consumer. */
const PREFETCH = 8;
const ANSWER_TIMEOUT_MS = 10_000;

function openSource(address: Address, prefetch: number): OpenPushSource {
  return async (onDelivery) => {
    const connection = await openAmqp(address, ANSWER_TIMEOUT_MS);
    const close = () => closeAmqp(connection);
    let open = true;
    let end = () => {};
    const ended = new Promise<void>((resolve) => {
      end = () => {
        open = false;
        resolve();
      };
    });
    connection.on('close', end);
    try {
      const channel = await withTimeout(connection.createChannel(), ANSWER_TIMEOUT_MS);
      channel.on('error', () => {});
      channel.on('close', end);
      await withTimeout(channel.prefetch(prefetch), ANSWER_TIMEOUT_MS);
      await withTimeout(
        channel.consume(QUEUE, (message) => {
          // Null: the server cancelled the consumer because the queue is gone.
          if (message === null) end();
          else onDelivery(deliveryOf(channel, message, () => open));
        }),
        ANSWER_TIMEOUT_MS,
      );
      const roundTrip = async () => void (await withTimeout(channel.checkQueue(QUEUE), ANSWER_TIMEOUT_MS));
      return { ended, roundTrip, close };
    } catch (error) {
      await close();
      throw error;
    }
  };
}

function deliveryOf(channel: Channel, message: ConsumeMessage, isOpen: () => boolean): Delivery {
  const messageId = message.properties.messageId as unknown;
  return {
    body: message.content,
    outsideId: typeof messageId === 'string' ? messageId : undefined,
    accept() {
      if (isOpen()) channel.ack(message);
      return isOpen();
    },
    refuse(permanent) {
      const requeue = !permanent;
      if (isOpen()) channel.nack(message, false, requeue);
      return `basic.nack, requeue ${requeue}`;
    },
  };
}
