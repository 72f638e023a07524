/** Names of the protocols that a target can use. */
export const PROTOCOL_NAMES = [
  'http',
  'smtp',
  'beanstalk',
  'redis-stream',
  'redis-list',
  'redis-wait',
  'postgres',
  'amqp',
  'amqp-stream',
  'mqtt',
  'nats',
] as const;

/** Name of a protocol. */
export type ProtocolName = (typeof PROTOCOL_NAMES)[number];
