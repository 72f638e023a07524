import type { Channel, ConsumeMessage } from 'amqplib';
import type { Address } from '../address.js';
import type { Delivery, PushSource } from '../client/push-receiver.js';
import { answerTimeoutMs, withTimeout } from '../client/timeout.js';
import { closeAmqp, openAmqp, QUEUE } from './client.js';

/** A message, with the channel that delivered it. */
export interface Arrival {
  readonly message: ConsumeMessage;
  readonly channel: Channel;
  /** Property `message-id`; undefined when there is none. */
  readonly messageId: string | undefined;
  isOpen(): boolean;
  /** Ends the connection: what was not acknowledged goes back to the server. */
  end(): void;
}

/** What a consumer asks the server for. */
export interface Consumption {
  /** Greatest number of unacknowledged deliveries. */
  prefetch: number;
  /** Arguments of `basic.consume`. */
  arguments?: Record<string, unknown>;
  onArrival(arrival: Arrival): void;
}

/**
 * Opens a connection that consumes the queue with manual acknowledgements.
 * @throws Error when the target does not accept the connection or the consumer.
 */
export async function openConsumer(
  address: Address,
  { prefetch, arguments: args = {}, onArrival }: Consumption,
): Promise<PushSource> {
  const timeoutMs = answerTimeoutMs(address);
  const connection = await openAmqp(address, timeoutMs);
  const close = () => closeAmqp(connection);
  let open = true;
  let end = () => {};
  const ended = new Promise<void>((resolve) => {
    end = () => {
      open = false;
      resolve();
    };
  });
  connection.on('close', end);
  try {
    const channel = await withTimeout(connection.createChannel(), timeoutMs);
    channel.on('error', () => {});
    channel.on('close', end);
    await withTimeout(channel.prefetch(prefetch), timeoutMs);
    const receive = (message: ConsumeMessage | null) => {
      // Null: the server cancelled the consumer because the queue is gone, or its leader.
      if (message === null) end();
      else onArrival({ message, channel, messageId: messageIdOf(message), isOpen: () => open, end });
    };
    await withTimeout(channel.consume(QUEUE, receive, { arguments: args }), timeoutMs);
    const roundTrip = async () => void (await withTimeout(channel.checkQueue(QUEUE), timeoutMs));
    return { ended, roundTrip, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function messageIdOf({ properties }: ConsumeMessage): string | undefined {
  const messageId = properties.messageId as unknown;
  return typeof messageId === 'string' ? messageId : undefined;
}

/** Returns a message as a delivery of a queue: the queue removes a message that is acknowledged. */
export function queueDelivery({ message, channel, messageId, isOpen }: Arrival): Delivery {
  return {
    body: message.content,
    outsideId: messageId,
    accept() {
      if (isOpen()) channel.ack(message);
      return isOpen();
    },
    refuse(permanent) {
      const requeue = !permanent;
      if (isOpen()) channel.nack(message, false, requeue);
      return `basic.nack, requeue ${requeue}`;
    },
  };
}
