import { amqp } from './amqp/amqp.js';
import { beanstalk } from './beanstalk/beanstalk.js';
import { http } from './http/http.js';
import type { ProtocolName } from './names.js';
import { postgres } from './postgres/postgres.js';
import type { Protocol } from './protocol.js';
import { redisList } from './redis/list.js';
import { redisStream } from './redis/stream.js';
import { smtp } from './smtp/smtp.js';

const PROTOCOLS: Readonly<Record<ProtocolName, Protocol>> = {
  http,
  smtp,
  amqp,
  beanstalk,
  'redis-stream': redisStream,
  'redis-list': redisList,
  postgres,
};

/** The protocol of a target. */
export function protocolOf(name: ProtocolName): Protocol {
  return PROTOCOLS[name];
}
