import type { Redis } from 'ioredis';
import type { Address } from '../address.js';
import { openersFor } from '../client/openers.js';
import { type Lease, type LeaseSource, PullReceiver } from '../client/pull-receiver.js';
import { connectProducer, type OpenSession } from '../client/session.js';
import { answerTimeoutMs, withTimeout } from '../client/timeout.js';
import type { Protocol } from '../protocol.js';
import type { ProtocolName } from '../protocol-names.js';
import { isErrorReply, KEY, openPrimary, redisReady, redisSession } from './client.js';

const GROUP = 'plugpull';
const FIELD = 'body';
const CONSUMERS = 2;
const WAIT_MS = 500;
/**
 * Time after which another consumer claims a pending entry, because the entry's consumer is gone or gave the
 * entry up.
 */
const CLAIM_IDLE_MS = 300;

/** An entry as the server sends it: id, then fields and values. The fields are null once the entry is deleted. */
type Entry = [id: Buffer, fields: Buffer[] | null];

/** Redis streams with a consumer group: `XADD` submits, `XREADGROUP` receives, `XACK` consumes. */
export const redisStream: Protocol = streamProtocol('redis-stream', 0);
/** `redis-stream` with replicas: a submit is confirmed only when `WAIT 1` has answered that a replica has the message. */
export const redisWait: Protocol = streamProtocol('redis-wait', 1);

/** @param copies number of replicas that must have a message before it is confirmed. */
function streamProtocol(name: ProtocolName, copies: number): Protocol {
  const openSession: OpenSession = (address, timeoutMs) =>
    redisSession(address, timeoutMs, (client, { bytes }) => client.xadd(KEY, '*', FIELD, bytes), copies);
  return {
    name,
    connect: (address, options) => connectProducer(openSession, address, options?.timeoutMs),
    ready: (address, timeoutMs) => redisReady(address, timeoutMs, copies),
    async receive(addresses, options) {
      const inOrder = options.inOrder === true;
      return new PullReceiver(
        openersFor(
          addresses,
          inOrder ? 1 : CONSUMERS,
          (address, number) => () => openSource(address, `consumer-${number}`, inOrder),
        ),
        options,
      );
    },
  };
}

/**
 * @param pendingFirst reads the entries first that the consumer had when its last connection broke. Otherwise they come
 *   after later ones, when they have been idle.
 */
async function openSource(address: Address, consumer: string, pendingFirst: boolean): Promise<LeaseSource> {
  const timeoutMs = answerTimeoutMs(address);
  const client = await openPrimary(address, timeoutMs);
  await ensureGroup(client, timeoutMs);
  const read = (after: Buffer | string) => readEntry(client, consumer, after, timeoutMs);
  const claim = () => claimEntry(client, consumer, timeoutMs);
  let lastClaimMs = 0;
  /** Id after which the next pending entry is read; undefined when all were read. */
  let pendingAfter: Buffer | string | undefined = pendingFirst ? '0' : undefined;
  return {
    async next() {
      let entry: Entry | undefined;
      if (pendingAfter !== undefined) {
        entry = await read(pendingAfter);
        pendingAfter = entry?.[0];
        if (entry !== undefined) return leaseOf(client, entry, timeoutMs);
      }
      if (performance.now() - lastClaimMs > CLAIM_IDLE_MS) {
        entry = await claim();
        if (entry === undefined) lastClaimMs = performance.now();
      }
      entry ??= await read('>');
      return entry && leaseOf(client, entry, timeoutMs);
    },
    close: () => client.disconnect(),
  };
}

/**
 * Creates the consumer group. It runs at every connection, because the server may have lost the group in a
 * crash.
 */
async function ensureGroup(client: Redis, timeoutMs: number): Promise<void> {
  try {
    await withTimeout(client.xgroup('CREATE', KEY, GROUP, '0', 'MKSTREAM'), timeoutMs);
  } catch (error) {
    if (isErrorReply(error) && error.message.startsWith('BUSYGROUP')) return;
    client.disconnect();
    throw error;
  }
}

async function claimEntry(client: Redis, consumer: string, timeoutMs: number): Promise<Entry | undefined> {
  const answer = client.callBuffer('XAUTOCLAIM', KEY, GROUP, consumer, CLAIM_IDLE_MS, '0', 'COUNT', 1);
  const [, entries] = (await withTimeout(answer, timeoutMs)) as [Buffer, Entry[]];
  return entries[0];
}

/** @param after `>`: the next new entry; otherwise the consumer's next pending entry after this id. */
async function readEntry(
  client: Redis,
  consumer: string,
  after: Buffer | string,
  timeoutMs: number,
): Promise<Entry | undefined> {
  const answer = client.callBuffer(
    'XREADGROUP',
    'GROUP',
    GROUP,
    consumer,
    'COUNT',
    1,
    'BLOCK',
    WAIT_MS,
    'STREAMS',
    KEY,
    after,
  );
  const streams = (await withTimeout(answer, timeoutMs)) as [Buffer, Entry[]][] | null;
  return streams?.[0]?.[1][0];
}

function leaseOf(client: Redis, [id, fields]: Entry, timeoutMs: number): Lease {
  return {
    body: fields?.[1] ?? Buffer.alloc(0),
    async consume() {
      const done = client.multi().xack(KEY, GROUP, id).xdel(KEY, id).exec();
      const [error, acknowledged] = (await withTimeout(done, timeoutMs))?.[0] ?? [null, undefined];
      if (error) throw error;
      if (acknowledged === 1) return undefined;
      if (acknowledged === 0) return 'XACK answered 0';
      throw new Error(`XACK answered ${acknowledged}`);
    },
    giveBack: async () => `the entry was left pending, to be claimed after ${CLAIM_IDLE_MS} ms`,
  };
}
