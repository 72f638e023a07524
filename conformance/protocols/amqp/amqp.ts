import { connectProducer } from '../client/session.js';
import type { Protocol } from '../protocol.js';
import { amqpReady, amqpSession } from './client.js';
import { AmqpReceiver } from './receiver.js';

/** AMQP 0-9-1 as RabbitMQ speaks it: publisher confirms in, manual acknowledgements out. */
export const amqp: Protocol = {
  name: 'amqp',
  connect: (port, options) => connectProducer(amqpSession, port, options?.timeoutMs),
  ready: amqpReady,
  receive: async (ports, options) => new AmqpReceiver(ports, options),
};
