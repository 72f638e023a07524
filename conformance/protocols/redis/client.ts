import { Redis } from 'ioredis';
import { messageOf } from '../../errors.js';
import type { Address } from '../address.js';
import { openGuarded } from '../client/input-guard.js';
import type { Session } from '../client/session.js';
import { withTimeout } from '../client/timeout.js';
import type { Message } from '../message.js';
import type { Answer } from '../protocol.js';

/** Key of the stream or list that holds the messages. */
export const KEY = 'plugpull';
/** Part of the timeout of an answer after which the server ends a WAIT. */
const WAIT_PART = 0.5;

/**
 * Opens a client that neither reconnects nor repeats a command: each answer must belong to exactly one command
 * of the kit.
 * @throws Error when the target does not accept the connection within `timeoutMs`.
 */
async function openRedis({ host, port }: Address, timeoutMs: number): Promise<Redis> {
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
 * Opens a connection as `openRedis` does. If the address is that of a node, or if replicas are demanded, the server must be a
 * primary. A client of Redis Sentinel demands the same.
 * @param minReplicas number of connected replicas that the primary must have.
 * @throws Error when the server is a replica, or a primary with fewer replicas, or as `openRedis` does.
 */
export async function openPrimary(address: Address, timeoutMs: number, minReplicas = 0): Promise<Redis> {
  const client = await openRedis(address, timeoutMs);
  if (address.node === undefined && minReplicas === 0) return client;
  try {
    const [role, , replicas] = (await withTimeout(client.role(), timeoutMs)) as [string, number, unknown[]];
    if (role !== 'master') throw new Error(`a ${role} takes no messages`);
    if (replicas.length < minReplicas)
      throw new Error(`expected ${minReplicas} connected replicas, found ${replicas.length}`);
    return client;
  } catch (error) {
    client.disconnect();
    throw error;
  }
}

/**
 * Tries once whether the server answers a data command, which it refuses while it loads its data. Never
 * rejects.
 * @param minReplicas see `openPrimary`.
 */
export async function redisReady(address: Address, timeoutMs: number, minReplicas = 0): Promise<boolean> {
  let client: Redis | undefined;
  try {
    client = await openPrimary(address, timeoutMs, minReplicas);
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
 * @param copies number of replicas that must have the message before it is confirmed.
 */
export async function redisSession(
  address: Address,
  timeoutMs: number,
  add: (client: Redis, message: Message) => Promise<string | number | null>,
  copies = 0,
): Promise<Session> {
  const client = await openPrimary(address, timeoutMs);
  // Track the socket: the client's own status changes some time after it.
  let usable = true;
  client.on('close', () => {
    usable = false;
  });
  return {
    async put(message) {
      try {
        const adding = add(client, message);
        // Send WAIT at once: it is about all writes before it on this connection.
        const waiting = copies === 0 ? undefined : client.wait(copies, Math.ceil(timeoutMs * WAIT_PART));
        waiting?.catch(() => {});
        const stored = await withTimeout(adding, timeoutMs);
        if (stored === null) return { outcome: 'indefinite', detail: 'answered with nil' };
        if (waiting === undefined) return { outcome: 'confirmed', detail: String(stored) };
        return answerOfWait(await waitResult(waiting, timeoutMs), copies, String(stored));
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

/** Returns the number of replicas that WAIT answered, or its error reply: the message is stored by then, so it is no rejection. */
async function waitResult(waiting: Promise<number>, timeoutMs: number): Promise<number | string> {
  try {
    return await withTimeout(waiting, timeoutMs);
  } catch (error) {
    if (isErrorReply(error)) return messageOf(error);
    throw error;
  }
}

function answerOfWait(result: number | string, copies: number, stored: string): Answer {
  const detail = `${stored}, WAIT ${copies} answered ${result}`;
  return { outcome: typeof result === 'number' && result >= copies ? 'confirmed' : 'indefinite', detail };
}
