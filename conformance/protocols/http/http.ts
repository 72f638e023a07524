import { Agent } from 'node:http';
import { KitError, messageOf } from '../../errors.js';
import { limit } from '../../limits.js';
import { type Address, describeAddress } from '../address.js';
import { openersFor } from '../client/openers.js';
import { type Lease, type LeaseSource, PullReceiver } from '../client/pull-receiver.js';
import { answerTimeoutMs } from '../client/timeout.js';
import type { Message } from '../message.js';
import type { Answer, HangUp, Producer, Protocol } from '../protocol.js';
import { type Exchange, exchange, type Response } from './exchange.js';

const CONSUMERS = 2;

/**
 * Queues with an HTTP interface: `PUT /messages/{id}`, `POST /leases`, `DELETE /leases/{lease}`, `GET /ready`.
 */
export const http: Protocol = {
  name: 'http',
  connect: (address, options) => connectHttp(address, options?.timeoutMs),
  async ready(address, timeoutMs) {
    const agent = new Agent();
    try {
      return (await exchange(readyProbe(agent, address, timeoutMs))).status === 200;
    } catch {
      return false;
    } finally {
      agent.destroy();
    }
  },
  async receive(addresses, options) {
    const count = options.inOrder ? 1 : CONSUMERS;
    return new PullReceiver(
      openersFor(addresses, count, (address) => async () => httpSource(address)),
      options,
    );
  },
};

function readyProbe(agent: Agent, address: Address, timeoutMs: number): Exchange {
  return {
    agent,
    address,
    method: 'GET',
    path: '/ready',
    timeoutMs,
    maxBodyBytes: limit('ready-answer-bytes'),
  };
}

/** Longest time that the target may hold a request for a lease before it answers that there is no message. */
const WAIT_MS = 500;

/** Makes a source that leases messages, and deletes the leases of consumed ones. */
function httpSource(address: Address): LeaseSource {
  const agent = new Agent({ keepAlive: true });
  const call = (method: 'POST' | 'DELETE', path: string, waitMs = 0) =>
    exchange({ agent, address, method, path, timeoutMs: answerTimeoutMs(address) + waitMs });
  return {
    async next() {
      const leased = await call('POST', `/leases?wait=${WAIT_MS}`, WAIT_MS);
      if (leased.status === 204) return undefined;
      if (leased.status === 200) return leaseOf(leased, call);
      throw new Error(`a lease was answered with ${leased.status}`);
    },
    close: () => agent.destroy(),
  };
}

function leaseOf(
  { body, headers }: Response,
  call: (method: 'DELETE', path: string) => Promise<Response>,
): Lease {
  const messageId = headers['message-id'];
  return {
    body,
    messageId: typeof messageId === 'string' ? messageId : undefined,
    async consume() {
      const path = `/leases/${encodeURIComponent(String(headers.lease ?? ''))}`;
      const { status } = await call('DELETE', path);
      if (status === 204) return undefined;
      if (status === 404 || status === 410) return String(status);
      throw new Error(`a deletion was answered with ${status}`);
    },
    giveBack: async () => 'the lease was left to itself',
  };
}

const DEFAULT_TIMEOUT_MS = 30_000;

/**
 * Opens a producer with one connection that is kept alive between messages. A node of a cluster must be ready: another one may
 * take messages while this one does not.
 * @throws KitError target-unavailable when the target does not answer; nothing was submitted then.
 */
async function connectHttp(address: Address, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<Producer> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  try {
    const { status } = await exchange(readyProbe(agent, address, timeoutMs));
    if (address.node !== undefined && status !== 200) throw new Error(`/ready was answered with ${status}`);
  } catch (error) {
    agent.destroy();
    throw new KitError('target-unavailable', `${describeAddress(address)}: ${messageOf(error)}`, {
      cause: error,
    });
  }
  return new HttpProducer(agent, address, timeoutMs);
}

class HttpProducer implements Producer {
  readonly #agent: Agent;
  readonly #address: Address;
  readonly #timeoutMs: number;
  #usable = true;

  constructor(agent: Agent, address: Address, timeoutMs: number) {
    this.#agent = agent;
    this.#address = address;
    this.#timeoutMs = timeoutMs;
  }

  usable(): boolean {
    return this.#usable;
  }

  async submit(message: Message, options: { hangUp?: HangUp } = {}): Promise<Answer> {
    try {
      const response = await exchange({
        agent: this.#agent,
        address: this.#address,
        method: 'PUT',
        path: `/messages/${encodeURIComponent(message.id)}`,
        body: message.bytes,
        timeoutMs: this.#timeoutMs,
        hangUp: options.hangUp,
      });
      return answerOf(response);
    } catch (error) {
      this.#usable = false;
      return { outcome: 'indefinite', detail: messageOf(error) };
    }
  }

  async close(): Promise<void> {
    this.#usable = false;
    this.#agent.destroy();
  }
}

/**
 * Returns the outcome of a response: 201 is confirmed; 4xx, 503 and 507 are rejected; everything else is
 * indefinite.
 */
function answerOf({ status, body }: Response): Answer {
  const detail = `${status} ${body.toString('utf8', 0, 200).replace(/\s+/g, ' ')}`.trim();
  if (status === 201) return { outcome: 'confirmed', detail };
  if ((status >= 400 && status < 500) || status === 503 || status === 507)
    return { outcome: 'rejected', detail };
  return { outcome: 'indefinite', detail };
}
