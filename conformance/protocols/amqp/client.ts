import { type ChannelModel, connect } from 'amqplib';
import { messageOf } from '../../errors.js';
import type { Address } from '../address.js';
import { openGuarded } from '../client/input-guard.js';
import type { Session } from '../client/session.js';
import { withTimeout } from '../client/timeout.js';
import type { Answer } from '../protocol.js';

/** Name of the queue that gets the messages through the default exchange. */
export const QUEUE = 'plugpull';

const CLOSE_TIMEOUT_MS = 1000;

/**
 * Opens a connection as RabbitMQ's user `guest`, which by default may connect from loopback only.
 * @throws Error when the target does not accept the connection within `timeoutMs`.
 */
export async function openAmqp({ host, port }: Address, timeoutMs: number): Promise<ChannelModel> {
  const url = { protocol: 'amqp', hostname: host, port, heartbeat: 0 };
  const connecting = openGuarded(() => connect(url, { timeout: timeoutMs, noDelay: true }));
  const connection = await withTimeout(connecting, timeoutMs).catch((error: unknown) => {
    // A stopped server answers after the timeout, when it continues. Close that connection: nothing would use it.
    connecting.then(closeAmqp, () => {});
    throw error;
  });
  // Ignore the event: the pending calls are rejected with the same error.
  connection.on('error', () => {});
  return connection;
}

/** Closes a connection in order, and gives up after CLOSE_TIMEOUT_MS. Never rejects. */
export async function closeAmqp(connection: ChannelModel): Promise<void> {
  await withTimeout(connection.close(), CLOSE_TIMEOUT_MS).catch(() => {});
}

/** Tests whether the queue works. Rejects if it does not. */
export type ReadyTest = (connection: ChannelModel, timeoutMs: number) => Promise<void>;

/**
 * Tries once whether the target accepts connections, has the queue, and passes a test. If the queue does not exist, it
 * declares a durable one with the given arguments. Never rejects.
 */
export async function amqpReady(
  address: Address,
  timeoutMs: number,
  { queueArguments, test }: { queueArguments: Record<string, unknown>; test: ReadyTest },
): Promise<boolean> {
  let connection: ChannelModel | undefined;
  try {
    connection = await openAmqp(address, timeoutMs);
    if (!(await hasQueue(connection, timeoutMs))) {
      const channel = await withTimeout(connection.createChannel(), timeoutMs);
      channel.on('error', () => {});
      const options = { durable: true, arguments: queueArguments };
      await withTimeout(channel.assertQueue(QUEUE, options), timeoutMs);
    }
    await test(connection, timeoutMs);
    return true;
  } catch {
    return false;
  } finally {
    if (connection) await closeAmqp(connection);
  }
}

/**
 * Returns whether the queue exists. The request uses a separate channel, because the server closes the
 * channel if the queue does not exist.
 */
async function hasQueue(connection: ChannelModel, timeoutMs: number): Promise<boolean> {
  const channel = await withTimeout(connection.createChannel(), timeoutMs);
  channel.on('error', () => {});
  try {
    await withTimeout(channel.checkQueue(QUEUE), timeoutMs);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 404) return false;
    throw error;
  }
}

/**
 * Returns what a negative confirmation proves. A server of a cluster also sends one when the node that leads the queue has
 * gone: that node may have stored the message, and others with it.
 */
export function answerOfNack({ node }: Pick<Address, 'node'>, detail: string): Answer {
  return { outcome: node === undefined ? 'rejected' : 'indefinite', detail: `basic.nack: ${detail}` };
}

/** Opens a connection that publishes persistent, mandatory messages with publisher confirms. */
export async function amqpSession(address: Address, timeoutMs: number): Promise<Session> {
  const connection = await openAmqp(address, timeoutMs);
  let usable = true;
  const markUnusable = () => {
    usable = false;
  };
  connection.on('close', markUnusable);
  const channel = await withTimeout(connection.createConfirmChannel(), timeoutMs);
  channel.on('close', markUnusable);
  channel.on('error', markUnusable);
  // `basic.return` arrives before the `basic.ack` of the same message, which then does not mean that a queue
  // stored it.
  const returned = new Set<string>();
  channel.on('return', ({ properties }) => returned.add(String(properties.messageId)));
  return {
    async put({ id, bytes }) {
      const options = { persistent: true, mandatory: true, messageId: id };
      try {
        const confirmed = new Promise<void>((resolve, reject) => {
          channel.publish('', QUEUE, bytes, options, (error: unknown) => {
            if (error) reject(error);
            else resolve();
          });
        });
        await withTimeout(confirmed, timeoutMs);
        if (!returned.has(id)) return { outcome: 'confirmed', detail: 'basic.ack' };
        return { outcome: 'rejected', detail: 'basic.return: no queue took it' };
      } catch (error) {
        const detail = messageOf(error);
        // The client reports a negative confirmation and a closed channel with the same error; `usable`
        // separates them.
        if (usable && /nack/i.test(detail)) return answerOfNack(address, detail);
        usable = false;
        return { outcome: 'indefinite', detail };
      }
    },
    usable: () => usable,
    close: () => closeAmqp(connection),
  };
}
