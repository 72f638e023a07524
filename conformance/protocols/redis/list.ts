import type { Redis } from 'ioredis';
import { within } from '../client/deadline.js';
import { type Lease, PullReceiver, type Source } from '../client/pull.js';
import { connectProducer } from '../client/session.js';
import type { Protocol } from '../protocol.js';
import { KEY, openRedis, redisReady, redisSession } from './client.js';

const CONSUMERS = 2;
const WAIT_S = 0.5;
const ANSWER_TIMEOUT_MS = 10_000;

/** Redis lists as a reliable queue: `LPUSH` in; `BLMOVE` into the consumer's own list and `LREM` from there out. */
export const redisList: Protocol = {
  name: 'redis-list',
  connect: (port, options) => connectProducer(openSession, port, options?.timeoutMs),
  ready: redisReady,
  async receive(ports, options) {
    const opens = ports.flatMap((port) =>
      Array.from({ length: CONSUMERS }, (_, number) => () => openSource(port, `${KEY}:taken:${number}`)),
    );
    return new PullReceiver(opens, options);
  },
};

const openSession = (port: number, timeoutMs: number) =>
  redisSession(port, timeoutMs, (client, { bytes }) => client.lpush(KEY, bytes));

async function openSource(port: number, taken: string): Promise<Source> {
  const client = await openRedis(port, ANSWER_TIMEOUT_MS);
  try {
    // What this consumer had taken when its last connection broke.
    while ((await within(client.lmoveBuffer(taken, KEY, 'LEFT', 'RIGHT'), ANSWER_TIMEOUT_MS)) !== null);
  } catch (error) {
    client.disconnect();
    throw error;
  }
  return {
    async next() {
      const body = await within(client.blmoveBuffer(KEY, taken, 'RIGHT', 'LEFT', WAIT_S), ANSWER_TIMEOUT_MS);
      return body === null ? undefined : leaseOf(client, taken, body);
    },
    close: () => client.disconnect(),
  };
}

function leaseOf(client: Redis, taken: string, body: Buffer): Lease {
  return {
    body,
    async take() {
      const removed = await within(client.lrem(taken, 1, body), ANSWER_TIMEOUT_MS);
      return removed > 0 ? undefined : 'LREM answered 0';
    },
    async leave() {
      await within(client.multi().lrem(taken, 1, body).lpush(KEY, body).exec(), ANSWER_TIMEOUT_MS);
      return 'the message was put back';
    },
  };
}
