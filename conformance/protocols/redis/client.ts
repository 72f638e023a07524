import { Redis } from 'ioredis';
import { messageOf } from '../../errors.js';
import type { Address } from '../address.js';
import { openGuarded } from '../client/input-guard.js';
import type { Session } from '../client/session.js';
import { withTimeout } from '../client/timeout.js';
import type { Message } from '../message.js';

/** Key of the stream or list that holds the messages. */
export const KEY = 'plugpull';

/**
 * Opens a client that neither reconnects nor repeats a command: each answer must belong to exactly one command
 * of the kit.
 * @throws Error when the target does not accept the connection within `timeoutMs`.
 */
export async function openRedis({ host, port }: Address, timeoutMs: number): Promise<Redis> {
  const client = new Redis({
    host,
    port,
    // RESP2: every server that is compatible with Redis supports it.
    protocol: 2,
    lazyConnect: true,
    connectTimeout: timeoutMs,
    retryStrategy: () => null,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    enableOfflineQueue: false,
    // `redisReady` sends a command to find out whether the server accepts commands.
    enableReadyCheck: false,
  });
  // Ignore the event: the pending commands are rejected with the same error.
  client.on('error', () => {});
  try {
    await withTimeout(
      openGuarded(() => client.connect()),
      timeoutMs,
    );
    return client;
  } catch (error) {
    client.disconnect();
    throw error;
  }
}

/**
 * Tries once whether the server answers a data command, which it refuses while it loads its data. Never
 * rejects.
 */
export async function redisReady(address: Address, timeoutMs: number): Promise<boolean> {
  let client: Redis | undefined;
  try {
    client = await openRedis(address, timeoutMs);
    await withTimeout(client.exists(KEY), timeoutMs);
    return true;
  } catch {
    return false;
  } finally {
    client?.disconnect();
  }
}

/** Returns true for an error reply of the server: it did not execute the command. */
export function isErrorReply(error: unknown): error is Error {
  return error instanceof Error && error.name === 'ReplyError';
}

/**
 * Opens a session.
 * @param add submits a message with one command, whose answer is an id or a length.
 */
export async function redisSession(
  address: Address,
  timeoutMs: number,
  add: (client: Redis, message: Message) => Promise<string | number | null>,
): Promise<Session> {
  const client = await openRedis(address, timeoutMs);
  // Track the socket: the client's own status changes some time after it.
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
