import type { Protocol } from '../protocol.js';
import type { ProtocolName } from '../protocol-names.js';

/** Each is loaded when a target speaks it: the clients of all of them take longer to load than a target to start. */
const PROTOCOLS: Readonly<Record<ProtocolName, () => Promise<Protocol>>> = {
  http: async () => (await import('../http/http.js')).http,
  smtp: async () => (await import('../smtp/smtp.js')).smtp,
  amqp: async () => (await import('../amqp/amqp.js')).amqp,
  beanstalk: async () => (await import('../beanstalk/beanstalk.js')).beanstalk,
  'redis-stream': async () => (await import('../redis/stream.js')).redisStream,
  'redis-list': async () => (await import('../redis/list.js')).redisList,
  postgres: async () => (await import('../postgres/postgres.js')).postgres,
};

/** The protocol of a target. */
export async function protocolOf(name: ProtocolName): Promise<Protocol> {
  return PROTOCOLS[name]();
}
