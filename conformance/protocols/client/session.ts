import { KitError, messageOf } from '../../errors.js';
import { type Address, describeAddress } from '../address.js';
import type { Message } from '../message.js';
import type { Answer, HangUp, Producer } from '../protocol.js';
import { BreakingProxy } from './breaking-proxy.js';

/** One connection of a producer, made by a client library that owns the socket. */
export interface Session {
  /** Submits a message. Never rejects, and resolves within the timeout with which the session was opened. */
  put(message: Message): Promise<Answer>;
  usable(): boolean;
  /** Closes the session. Never rejects; may be called twice. */
  close(): Promise<void>;
}

/**
 * Opens a session within `timeoutMs`, which is also the limit for every answer. Rejects if the target does
 * not accept the connection.
 */
export type OpenSession = (address: Address, timeoutMs: number) => Promise<Session>;

const DEFAULT_TIMEOUT_MS = 30_000;

/**
 * Makes a producer that uses sessions of a client library.
 * @throws KitError target-unavailable when the target does not accept connections; then nothing was submitted.
 */
export async function connectProducer(
  open: OpenSession,
  address: Address,
  timeoutMs = DEFAULT_TIMEOUT_MS,
): Promise<Producer> {
  try {
    return new SessionProducer(await open(address, timeoutMs), open, address, timeoutMs);
  } catch (error) {
    throw new KitError('target-unavailable', `${describeAddress(address)}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

class SessionProducer implements Producer {
  readonly #session: Session;
  readonly #open: OpenSession;
  readonly #address: Address;
  readonly #timeoutMs: number;
  #hungUp = false;

  constructor(session: Session, open: OpenSession, address: Address, timeoutMs: number) {
    this.#session = session;
    this.#open = open;
    this.#address = address;
    this.#timeoutMs = timeoutMs;
  }

  usable(): boolean {
    return !this.#hungUp && this.#session.usable();
  }

  async submit(message: Message, options: { hangUp?: HangUp } = {}): Promise<Answer> {
    if (options.hangUp === undefined) return this.#session.put(message);
    this.#hungUp = true;
    return this.#putAndHangUp(message, options.hangUp);
  }

  async close(): Promise<void> {
    await this.#session.close();
  }

  /**
   * Uses a second connection through a breaking proxy, so that submits under way on the first one are not
   * affected.
   */
  async #putAndHangUp(message: Message, hangUp: HangUp): Promise<Answer> {
    const proxy = await BreakingProxy.start(this.#address);
    let session: Session | undefined;
    try {
      session = await this.#open(proxy.address, this.#timeoutMs);
      const broken = proxy.breakAt(hangUp, message.bytes.length);
      if (hangUp === 'before-data') await broken;
      else await Promise.all([broken, session.put(message)]);
      return { outcome: 'indefinite', detail: `the producer hung up on purpose, ${hangUp}` };
    } catch (error) {
      return { outcome: 'indefinite', detail: messageOf(error) };
    } finally {
      proxy.close();
      await session?.close();
    }
  }
}
