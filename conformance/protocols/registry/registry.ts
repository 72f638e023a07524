import type { Protocol } from '../protocol.js';
import type { ProtocolName } from '../protocol-names.js';

/**
 * Loads each protocol only when a target uses it: loading all clients takes longer than the start of a target.
 */
const PROTOCOLS: Readonly<Record<ProtocolName, () => Promise<Protocol>>> = {
  http: async () => (await import('../http/http.js')).http,
  smtp: async () => (await import('../smtp/smtp.js')).smtp,
  mqtt: async () => (await import('../mqtt/mqtt.js')).mqtt,
  nats: async () => (await import('../nats/nats.js')).nats,
  amqp: async () => (await import('../amqp/amqp.js')).amqp,
  'amqp-stream': async () => (await import('../amqp/stream.js')).amqpStream,
  beanstalk: async () => (await import('../beanstalk/beanstalk.js')).beanstalk,
  'redis-stream': async () => (await import('../redis/stream.js')).redisStream,
  'redis-list': async () => (await import('../redis/list.js')).redisList,
  'redis-wait': async () => (await import('../redis/stream.js')).redisWait,
  postgres: async () => (await import('../postgres/postgres.js')).postgres,
};

/** Returns the implementation of a protocol. */
export async function protocolOf(name: ProtocolName): Promise<Protocol> {
  return PROTOCOLS[name]();
}
