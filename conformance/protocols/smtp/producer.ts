import { KitError, messageOf } from '../../errors.js';
import { type Address, describeAddress } from '../address.js';
import type { Message } from '../message.js';
import type { Answer, HangUp, Producer } from '../protocol.js';
import { type Reply, replyText, SmtpConnection } from './connection.js';

/**
 * Default timeout: long enough for a loaded target with large messages, short enough that a stopped one cannot
 * stall a run.
 */
export const DEFAULT_TIMEOUT_MS = 30_000;
/** Timeout for the answer to QUIT. It is short, because a missing answer changes nothing. */
const QUIT_TIMEOUT_MS = 1000;

/**
 * Opens a connection and sends EHLO.
 * @throws KitError target-unavailable when the target does not accept the connection; then nothing was
 * submitted.
 */
export async function connectSmtp(address: Address, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<Producer> {
  let connection: SmtpConnection | undefined;
  try {
    connection = await SmtpConnection.open(address, timeoutMs);
    expectCode(await connection.reply(timeoutMs), 220);
    await connection.send('EHLO producer.plugpull.test\r\n');
    const ehlo = expectCode(await connection.reply(timeoutMs), 250);
    const extensions = new Set(ehlo.lines.slice(1).map((line) => line.split(' ')[0]?.toUpperCase()));
    return new SmtpProducer(connection, timeoutMs, extensions.has('PIPELINING'), extensions.has('8BITMIME'));
  } catch (error) {
    connection?.break('given up');
    throw new KitError('target-unavailable', `${describeAddress(address)}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function expectCode(reply: Reply, code: number): Reply {
  if (reply.code !== code) throw new Error(`expected ${code}, got ${replyText(reply)}`);
  return reply;
}

const indefinite = (detail: string): Answer => ({ outcome: 'indefinite', detail });
const rejected = (reply: Reply): Answer => ({ outcome: 'rejected', detail: replyText(reply) });
const isRejection = (reply: Reply) => reply.code >= 400;

/** Returns the time until a deadline for several answers together: each alone could take the whole timeout. */
const timeUntil = (endMs: number) => Math.max(1, Math.round(endMs - performance.now()));

class SmtpProducer implements Producer {
  readonly #connection: SmtpConnection;
  readonly #timeoutMs: number;
  readonly #pipelining: boolean;
  readonly #eightBit: boolean;
  /**
   * Resolves when the last submit has written all its data. The next submit may then write, before the answer
   * arrives.
   */
  #written: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(connection: SmtpConnection, timeoutMs: number, pipelining: boolean, eightBit: boolean) {
    this.#connection = connection;
    this.#timeoutMs = timeoutMs;
    this.#pipelining = pipelining;
    this.#eightBit = eightBit;
  }

  usable(): boolean {
    return !this.#closed && !this.#connection.broken;
  }

  async submit(message: Message, options: { hangUp?: HangUp } = {}): Promise<Answer> {
    const previousWritten = this.#written;
    let release = () => {};
    this.#written = new Promise((resolve) => {
      release = resolve;
    });
    await previousWritten;
    let answered: Promise<Reply> | undefined;
    try {
      const refusal = await this.#envelope(message);
      if (refusal) return rejected(refusal);
      const next = await this.#data(message, options.hangUp);
      if ('outcome' in next) return next;
      answered = next.answer;
      if (!this.#pipelining) await answered.catch(() => {});
    } catch (error) {
      return indefinite(messageOf(error));
    } finally {
      release();
    }
    return answered.then(finalAnswer, (error) => indefinite(messageOf(error)));
  }

  async close(): Promise<void> {
    await this.#written;
    if (this.usable()) {
      this.#closed = true;
      try {
        await this.#connection.send('QUIT\r\n');
        await this.#connection.reply(QUIT_TIMEOUT_MS);
      } catch {
        // The target is gone or silent. Its answer to QUIT would change nothing.
      }
    }
    this.#connection.break('closed');
  }

  /**
   * Sends the envelope. Resolves to the reply that refused it, or to undefined when the target waits for the
   * data.
   */
  async #envelope(message: Message): Promise<Reply | undefined> {
    const body = this.#eightBit ? ' BODY=8BITMIME' : '';
    const commands = [
      `MAIL FROM:<${message.sender}>${body}`,
      ...message.recipients.map((recipient) => `RCPT TO:<${recipient}>`),
      'DATA',
    ];
    const replies = this.#pipelining
      ? await this.#sendPipelined(commands)
      : await this.#sendOneByOne(commands);
    const refusal = replies.find(isRejection);
    const last = replies.at(-1);
    // Without its data the target cannot have the message, so a refusal is definite. If the target answered 354
    // although it refused a recipient, hang up: the end of the data would submit an empty message to the other
    // recipients.
    if (refusal && last?.code === 354) this.#connection.break(`refused in part: ${replyText(refusal)}`);
    else if (refusal) await this.#reset();
    else if (last?.code !== 354) throw new Error(this.#failUnexpected(last));
    return refusal;
  }

  async #sendPipelined(commands: readonly string[]): Promise<Reply[]> {
    await this.#connection.send(`${commands.join('\r\n')}\r\n`);
    const replies: Reply[] = [];
    const endMs = performance.now() + this.#timeoutMs;
    for (const _ of commands) {
      try {
        replies.push(await this.#connection.reply(timeUntil(endMs), this.#timeoutMs));
      } catch (error) {
        // A target that rejects and hangs up (421) has rejected: the data was never sent.
        if (replies.some(isRejection)) break;
        throw error;
      }
    }
    return replies;
  }

  async #sendOneByOne(commands: readonly string[]): Promise<Reply[]> {
    const replies: Reply[] = [];
    const endMs = performance.now() + this.#timeoutMs;
    for (const command of commands) {
      await this.#connection.send(`${command}\r\n`);
      const reply = await this.#connection.reply(timeUntil(endMs), this.#timeoutMs);
      replies.push(reply);
      if (isRejection(reply)) break;
    }
    return replies;
  }

  /**
   * Resets the transaction after a refusal, so that the next MAIL is valid. If this fails the connection is
   * broken.
   */
  async #reset(): Promise<void> {
    try {
      await this.#connection.send('RSET\r\n');
      expectCode(await this.#connection.reply(this.#timeoutMs), 250);
    } catch (error) {
      this.#connection.break(messageOf(error));
    }
  }

  async #data(message: Message, hangUp: HangUp | undefined): Promise<Answer | { answer: Promise<Reply> }> {
    const bytes = dotStuff(message.bytes);
    if (hangUp === undefined) {
      await this.#connection.send(bytes);
      return { answer: this.#connection.reply(this.#timeoutMs) };
    }
    if (hangUp === 'in-data')
      await this.#connection.send(bytes.subarray(0, Math.ceil(message.bytes.length / 2)));
    if (hangUp === 'before-answer') await this.#connection.send(bytes);
    const why = `the producer hung up on purpose, ${hangUp}`;
    this.#connection.break(why);
    return indefinite(why);
  }

  #failUnexpected(reply: Reply | undefined): string {
    const why = `expected 354, got ${reply ? replyText(reply) : 'nothing'}`;
    this.#connection.break(why);
    return why;
  }
}

/**
 * Returns the outcome of the reply to the data: 250 is confirmed; 4xx and 5xx are rejected; others are
 * indefinite.
 */
function finalAnswer(reply: Reply): Answer {
  if (reply.code === 250) return { outcome: 'confirmed', detail: replyText(reply) };
  return isRejection(reply) ? rejected(reply) : indefinite(replyText(reply));
}

const DOT = 0x2e;
const CRLF_DOT = Buffer.from('\r\n.');
const END_OF_DATA = Buffer.from('.\r\n');

/**
 * Encodes a message for the DATA command: dots at line starts are doubled, and a line with a single dot ends
 * the data (RFC 5321, section 4.5.2). `bytes` must end with CRLF.
 */
export function dotStuff(bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  let from = 0;
  if (bytes[0] === DOT) parts.push(Buffer.from('.'));
  for (let at = bytes.indexOf(CRLF_DOT); at >= 0; at = bytes.indexOf(CRLF_DOT, at + 1)) {
    parts.push(bytes.subarray(from, at + 3), Buffer.from('.'));
    from = at + 3;
  }
  parts.push(bytes.subarray(from), END_OF_DATA);
  return Buffer.concat(parts);
}
