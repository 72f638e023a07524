import { openersFor } from '../client/openers.js';
import { type OpenPushSource, PushReceiver } from '../client/push-receiver.js';
import { connectProducer } from '../client/session.js';
import { withTimeout } from '../client/timeout.js';
import type { Protocol } from '../protocol.js';
import { amqpReady, amqpSession, QUEUE, type ReadyTest } from './client.js';
import { openConsumer, queueDelivery } from './consumer.js';

const CONSUMERS = 2;
/** Greatest number of unacknowledged deliveries of a consumer. */
const PREFETCH = 8;

/**
 * AMQP 0-9-1 with RabbitMQ's extensions: publisher confirms for submits, manual acknowledgements for
 * deliveries.
 */
export const amqp: Protocol = {
  name: 'amqp',
  connect: (address, options) => connectProducer(amqpSession, address, options?.timeoutMs),
  ready: (address, timeoutMs, { replicas = 1 } = {}) =>
    amqpReady(address, timeoutMs, { queueArguments: queueArguments(replicas), test: getOne }),
  async receive(addresses, options) {
    const [count, prefetch] = options.inOrder ? [1, 1] : [CONSUMERS, PREFETCH];
    const openers = openersFor<OpenPushSource>(
      addresses,
      count,
      (address) => (onDelivery) =>
        openConsumer(address, { prefetch, onArrival: (arrival) => onDelivery(queueDelivery(arrival)) }),
    );
    return new PushReceiver(openers, options);
  },
};

function queueArguments(replicas: number): Record<string, unknown> {
  if (replicas === 1) return {};
  return { 'x-queue-type': 'quorum', 'x-quorum-initial-group-size': replicas };
}

/** Gets a message and gives it back: a quorum queue without a leader can be declared, and then accepts nothing. */
const getOne: ReadyTest = async (connection, timeoutMs) => {
  const channel = await withTimeout(connection.createChannel(), timeoutMs);
  channel.on('error', () => {});
  const message = await withTimeout(channel.get(QUEUE, { noAck: false }), timeoutMs);
  if (message !== false) channel.nack(message, false, true);
  await withTimeout(channel.checkQueue(QUEUE), timeoutMs);
};
