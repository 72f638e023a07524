import {
  AckPolicy,
  type Consumer,
  type ConsumerConfig,
  type ConsumerInfo,
  JetStreamApiCodes,
  JetStreamApiError,
  type JsMsg,
  jetstream,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
  type StreamInfo,
} from '@nats-io/jetstream';
import { connect, type NatsConnection, NoRespondersError, nanos } from '@nats-io/transport-node';
import { messageOf } from '../../errors.js';
import type { Address } from '../address.js';
import { openGuarded } from '../client/input-guard.js';
import { openersFor } from '../client/openers.js';
import { type Lease, type LeaseSource, PullReceiver } from '../client/pull-receiver.js';
import { connectProducer, type Session } from '../client/session.js';
import { answerTimeoutMs, withTimeout } from '../client/timeout.js';
import type { Answer, Protocol, ReadyOptions } from '../protocol.js';

/** Name of the stream that holds the messages, and of its only subject. */
const STREAM = 'PLUGPULL';
const SUBJECT = 'plugpull';
/** Name of the durable consumer. */
const CONSUMER = 'plugpull';
/** Number of connections of the receiver. */
const CONSUMERS = 2;
/** Greatest number of copies of a stream. */
const MAX_COPIES = 5;
/** Time that the receiver waits for a message. It is the least that the client accepts. */
const WAIT_MS = 1000;
/** Time after which the server delivers a message again that was not acknowledged. */
const ACK_WAIT_MS = 2000;

/** NATS JetStream: acknowledged publishes, a pull consumer, acknowledgements with an answer. */
export const nats: Protocol = {
  name: 'nats',
  connect: (address, options) => connectProducer(openSession, address, options?.timeoutMs),
  ready: natsReady,
  async receive(addresses, options) {
    const inOrder = options.inOrder === true;
    return new PullReceiver(
      openersFor(addresses, inOrder ? 1 : CONSUMERS, (address) => () => openSource(address, inOrder)),
      options,
    );
  },
};

/**
 * Returns what an error of a publish proves: rejected if the server answered with an error, or nothing that could
 * have stored the message received it; otherwise indefinite.
 */
export function answerOf(error: unknown): Answer {
  if (error instanceof JetStreamApiError)
    return { outcome: 'rejected', detail: `${error.code} ${error.message}` };
  if (isNoResponders(error)) return { outcome: 'rejected', detail: 'no responders' };
  return { outcome: 'indefinite', detail: messageOf(error) };
}

/** The client wraps the error of the server twice. */
function isNoResponders(error: unknown): boolean {
  if (error instanceof NoRespondersError) return true;
  return error instanceof Error && error.cause !== undefined && isNoResponders(error.cause);
}

/** Opens a connection that does not reconnect: each answer must belong to exactly one request of the kit. */
async function openNats({ host, port }: Address, timeoutMs: number): Promise<NatsConnection> {
  const options = {
    servers: `${host}:${port}`,
    reconnect: false,
    timeout: timeoutMs,
    noRandomize: true,
    ignoreClusterUpdates: true,
  };
  return openGuarded(() => connect(options));
}

async function openSession(address: Address, timeoutMs: number): Promise<Session> {
  const connection = await openNats(address, timeoutMs);
  const stream = jetstream(connection);
  let usable = true;
  void connection.closed().then(() => {
    usable = false;
  });
  return {
    async put({ id, bytes }) {
      try {
        // One attempt: the client would otherwise publish again when nothing responds.
        const ack = await stream.publish(SUBJECT, bytes, { msgID: id, timeout: timeoutMs, retries: 1 });
        return { outcome: 'confirmed', detail: `${ack.stream} ${ack.seq}` };
      } catch (error) {
        const answer = answerOf(error);
        if (answer.outcome === 'indefinite') {
          usable = false;
          await connection.close();
        }
        return answer;
      }
    },
    usable: () => usable && !connection.isClosed(),
    close: () => connection.close(),
  };
}

/**
 * Tries once whether the server has the stream and its consumer, and makes them if they do not exist. Never
 * rejects.
 * @param options with several replicas, each new stream and consumer gets copies on as many nodes. Then both must have a
 *   leader, and all copies of a stream that never had a message must be current.
 */
async function natsReady(
  address: Address,
  timeoutMs: number,
  { replicas = 1 }: ReadyOptions = {},
): Promise<boolean> {
  let connection: NatsConnection | undefined;
  try {
    connection = await openNats(address, timeoutMs);
    const manager = await jetstreamManager(connection, { timeout: timeoutMs });
    const copies = copiesFor(replicas);
    const stream = await unlessMissing(manager.streams.info(STREAM), JetStreamApiCodes.StreamNotFound, () =>
      manager.streams.add({
        name: STREAM,
        subjects: [SUBJECT],
        storage: StorageType.File,
        retention: RetentionPolicy.Workqueue,
        ...copies,
      }),
    );
    const consumer = await unlessMissing(
      manager.consumers.info(STREAM, CONSUMER),
      JetStreamApiCodes.ConsumerNotFound,
      () => manager.consumers.add(STREAM, { ...consumerConfig(), ...copies }),
    );
    if (replicas === 1) return true;
    const isNew = stream.state.last_seq === 0;
    return isElected(stream, isNew) && isElected(consumer, isNew);
  } catch {
    return false;
  } finally {
    await connection?.close();
  }
}

/** Returns the number of copies as a part of a configuration: 3 for three or four nodes, 5 for more, because NATS allows at most 5. */
function copiesFor(nodes: number): { num_replicas?: number } {
  if (nodes < 3) return {};
  return { num_replicas: nodes < MAX_COPIES ? 3 : MAX_COPIES };
}

/** Returns whether a stream or consumer has a leader; and, for `allCurrent`, whether all its copies are complete. */
function isElected({ cluster }: Pick<StreamInfo | ConsumerInfo, 'cluster'>, allCurrent: boolean): boolean {
  if (cluster?.leader === undefined || cluster.leader === '') return false;
  return !allCurrent || (cluster.replicas ?? []).every(({ current, offline }) => current && offline !== true);
}

function consumerConfig(): Partial<ConsumerConfig> {
  return { durable_name: CONSUMER, ack_policy: AckPolicy.Explicit, ack_wait: nanos(ACK_WAIT_MS) };
}

async function unlessMissing<Info>(
  info: Promise<Info>,
  code: number,
  make: () => Promise<Info>,
): Promise<Info> {
  try {
    return await info;
  } catch (error) {
    if (!(error instanceof JetStreamApiError && error.code === code)) throw error;
    return await make();
  }
}

/** @param oneAtATime lets the server deliver a message only when the one before is acknowledged or comes again. */
async function openSource(address: Address, oneAtATime: boolean): Promise<LeaseSource> {
  const timeoutMs = answerTimeoutMs(address);
  const connection = await openNats(address, timeoutMs);
  let consumer: Consumer;
  try {
    if (oneAtATime) {
      const manager = await jetstreamManager(connection, { timeout: timeoutMs });
      await manager.consumers.update(STREAM, CONSUMER, { max_ack_pending: 1 });
    }
    consumer = await withTimeout(jetstream(connection).consumers.get(STREAM, CONSUMER), timeoutMs);
  } catch (error) {
    await connection.close();
    throw error;
  }
  // The requests of the client do not end with the connection.
  const broken = connection.closed().then((error) => {
    throw error ?? new Error('the connection broke');
  });
  broken.catch(() => {});
  return {
    async next() {
      const message = await Promise.race([consumer.next({ expires: WAIT_MS }), broken]);
      return message === null ? undefined : leaseOf(message, broken, timeoutMs);
    },
    close: () => void connection.close().catch(() => {}),
  };
}

/** @param broken rejects when the connection has ended. */
function leaseOf(message: JsMsg, broken: Promise<never>, timeoutMs: number): Lease {
  return {
    body: Buffer.from(message.data),
    async consume() {
      if (await Promise.race([message.ackAck({ timeout: timeoutMs }), broken])) return undefined;
      throw new Error('no answer to the acknowledgement');
    },
    async giveBack() {
      message.nak();
      return '-NAK';
    },
  };
}
