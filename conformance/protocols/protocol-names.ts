/** Every protocol that a target can name. */
export const PROTOCOL_NAMES = [
  'http',
  'smtp',
  'beanstalk',
  'redis-stream',
  'redis-list',
  'postgres',
  'amqp',
] as const;

export type ProtocolName = (typeof PROTOCOL_NAMES)[number];
