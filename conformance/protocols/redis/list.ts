import type { Redis } from 'ioredis';
import type { Address } from '../address.js';
import { openersFor } from '../client/openers.js';
import { type Lease, type LeaseSource, PullReceiver } from '../client/pull-receiver.js';
import { connectProducer } from '../client/session.js';
import { answerTimeoutMs, withTimeout } from '../client/timeout.js';
import type { Protocol } from '../protocol.js';
import { KEY, openPrimary, redisReady, redisSession } from './client.js';

const CONSUMERS = 2;
const WAIT_S = 0.5;

/**
 * Redis lists as a reliable queue: `LPUSH` submits, `BLMOVE` into the consumer's own list receives, `LREM`
 * consumes.
 */
export const redisList: Protocol = {
  name: 'redis-list',
  connect: (address, options) => connectProducer(openSession, address, options?.timeoutMs),
  ready: (address, timeoutMs) => redisReady(address, timeoutMs),
  async receive(addresses, options) {
    const count = options.inOrder ? 1 : CONSUMERS;
    return new PullReceiver(
      openersFor(addresses, count, (address, number) => () => openSource(address, `${KEY}:taken:${number}`)),
      options,
    );
  },
};

const openSession = (address: Address, timeoutMs: number) =>
  redisSession(address, timeoutMs, (client, { bytes }) => client.lpush(KEY, bytes));

async function openSource(address: Address, takenKey: string): Promise<LeaseSource> {
  const timeoutMs = answerTimeoutMs(address);
  const client = await openPrimary(address, timeoutMs);
  try {
    // Put back the messages that this consumer had taken when its last connection broke.
    while ((await withTimeout(client.lmoveBuffer(takenKey, KEY, 'LEFT', 'RIGHT'), timeoutMs)) !== null);
  } catch (error) {
    client.disconnect();
    throw error;
  }
  return {
    async next() {
      const body = await withTimeout(client.blmoveBuffer(KEY, takenKey, 'RIGHT', 'LEFT', WAIT_S), timeoutMs);
      return body === null ? undefined : leaseOf(client, takenKey, body, timeoutMs);
    },
    close: () => client.disconnect(),
  };
}

function leaseOf(client: Redis, takenKey: string, body: Buffer, timeoutMs: number): Lease {
  return {
    body,
    async consume() {
      const removed = await withTimeout(client.lrem(takenKey, 1, body), timeoutMs);
      return removed > 0 ? undefined : 'LREM answered 0';
    },
    async giveBack() {
      await withTimeout(client.multi().lrem(takenKey, 1, body).lpush(KEY, body).exec(), timeoutMs);
      return 'the message was put back';
    },
  };
}
