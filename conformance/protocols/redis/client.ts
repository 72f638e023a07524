import { Redis } from 'ioredis';
import { messageOf } from '../../errors.js';
import type { Session } from '../client/session.js';
import { withTimeout } from '../client/timeout.js';
import type { Message } from '../message.js';

/** The stream or list that messages go into. */
export const KEY = 'plugpull';

/**
 * A client that neither connects again nor sends anything twice: what the target answered must be what the kit asked.
 * @throws Error when the target does not take the connection within `timeoutMs`.
 */
export async function openRedis(port: number, timeoutMs: number): Promise<Redis> {
  const client = new Redis({
    host: '127.0.0.1',
    port,
    // Spoken by everything that calls itself Redis.
    protocol: 2,
    lazyConnect: true,
    connectTimeout: timeoutMs,
    retryStrategy: () => null,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    enableOfflineQueue: false,
    // Whether it takes commands is asked with a command.
    enableReadyCheck: false,
  });
  // What breaks is told to whoever waits for an answer.
  client.on('error', () => {});
  try {
    await withTimeout(client.connect(), timeoutMs);
    return client;
  } catch (error) {
    client.disconnect();
    throw error;
  }
}

/** One try: does it answer commands on data, which it does not while it loads? */
export async function redisReady(port: number, timeoutMs: number): Promise<boolean> {
  let client: Redis | undefined;
  try {
    client = await openRedis(port, timeoutMs);
    await withTimeout(client.exists(KEY), timeoutMs);
    return true;
  } catch {
    return false;
  } finally {
    client?.disconnect();
  }
}

/** An error reply of the server: it did not execute the command. */
export function isErrorReply(error: unknown): error is Error {
  return error instanceof Error && error.name === 'ReplyError';
}

/** A session whose messages are handed over by `add`, a command that answers what it stored. */
export async function redisSession(
  port: number,
  timeoutMs: number,
  add: (client: Redis, message: Message) => Promise<string | number | null>,
): Promise<Session> {
  const client = await openRedis(port, timeoutMs);
  // The client's own state follows the socket late.
  let usable = true;
  client.on('close', () => {
    usable = false;
  });
  return {
    async put(message) {
      try {
        const stored = await withTimeout(add(client, message), timeoutMs);
        if (stored === null) return { outcome: 'indefinite', detail: 'answered with nil' };
        return { outcome: 'confirmed', detail: String(stored) };
      } catch (error) {
        if (isErrorReply(error)) return { outcome: 'rejected', detail: messageOf(error) };
        usable = false;
        client.disconnect();
        return { outcome: 'indefinite', detail: messageOf(error) };
      }
    },
    usable: () => usable,
    close: async () => client.disconnect(),
  };
}
