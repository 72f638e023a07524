import { Agent } from 'node:http';
import { KitError, messageOf } from '../../errors.js';
import type { Message } from '../message.js';
import type { Answer, HangUp, Producer } from '../protocol.js';
import { exchange, type Response } from './exchange.js';

const DEFAULT_TIMEOUT_MS = 30_000;

/**
 * Opens a connection, kept alive between messages.
 * @throws KitError target-unavailable when the target does not answer; nothing was submitted then.
 */
export async function connectHttp(port: number, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<Producer> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  try {
    await exchange({ agent, port, method: 'GET', path: '/ready', timeoutMs });
  } catch (error) {
    agent.destroy();
    throw new KitError('target-unavailable', `port ${port}: ${messageOf(error)}`, { cause: error });
  }
  return new HttpProducer(agent, port, timeoutMs);
}

class HttpProducer implements Producer {
  readonly #agent: Agent;
  readonly #port: number;
  readonly #timeoutMs: number;
  #usable = true;

  constructor(agent: Agent, port: number, timeoutMs: number) {
    this.#agent = agent;
    this.#port = port;
    this.#timeoutMs = timeoutMs;
  }

  usable(): boolean {
    return this.#usable;
  }

  async submit(message: Message, options: { hangUp?: HangUp } = {}): Promise<Answer> {
    try {
      const response = await exchange({
        agent: this.#agent,
        port: this.#port,
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

/** 201 is yes; 4xx, 503 and 507 are no; whatever else was meant, it was neither. */
function answerOf({ status, body }: Response): Answer {
  const detail = `${status} ${body.toString('utf8', 0, 200).replace(/\s+/g, ' ')}`.trim();
  if (status === 201) return { outcome: 'confirmed', detail };
  if ((status >= 400 && status < 500) || status === 503 || status === 507)
    return { outcome: 'rejected', detail };
  return { outcome: 'indefinite', detail };
}
