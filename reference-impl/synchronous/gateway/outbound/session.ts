import { isAscii } from 'node:buffer';
import { once } from 'node:events';
import { connect, isIP, type Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import type { OutboundTls } from '../tls.js';
import type { Conversions, Reservation } from './conversions.js';
import { dotStuff, type Reply, ReplyReader, replyText } from './reply-reader.js';
import type { Envelope } from './routing.js';
import { maxSevenBitBytes, toSevenBit } from './seven-bit.js';

/** A message for the next hop. */
export interface OutboundMessage {
  envelope: Envelope;
  data: Buffer;
}

/** The result of a delivery for one recipient. */
export type RecipientResult = { result: 'delivered' } | { result: 'deferred' | 'refused'; reason: string };

/** Options of a session with a next hop. */
export interface OutboundOptions {
  host: string;
  port: number;
  /** Host name in the EHLO. */
  hostname: string;
  connectTimeoutMs: number;
  replyTimeoutMs: number;
  /** Time that a session without a message stays open for further messages, in milliseconds. */
  keepIdleMs: number;
  messagesPerSession: number;
  /** The memory for converted messages, which all sessions of a worker share. */
  conversions: Conversions;
  tls: OutboundTls;
  /** Whether this session does without TLS because TLS has just failed. A refusal may be due to that. */
  isTlsSkipped?: boolean;
}

/** The source of the messages of a session, which also receives their results. */
export interface OutboundSource<Message extends OutboundMessage> {
  /** Returns the next message, or undefined if none waits now. */
  next: () => Message | undefined;
  /** Receives one result for each recipient, in the order of the recipients. */
  done: (message: Message, results: RecipientResult[]) => void;
}

/** Maximum size in bytes of a message that is copied into one write. */
const MAX_COPY_BYTES = 16 * 1024;
/** Result for a message that needs 8BITMIME and cannot be converted (RFC 6152, section 3). */
const NEEDS_EIGHT_BIT: RecipientResult = {
  result: 'refused',
  reason:
    '554 5.6.3 The message has 8-bit bytes, the next hop does not offer 8BITMIME, and no conversion is possible',
};
/** Maximum size of the replies that came before they were asked for. A server that sends more does not speak SMTP. */
const MAX_EARLY_REPLY_BYTES = 2 ** 20;

interface Extensions {
  pipelining: boolean;
  eightBit: boolean;
  size: boolean;
  startTls: boolean;
}

/** A TLS handshake with the next hop that failed. */
export class HandshakeError extends Error {}

/**
 * A connection to the next hop that carries many messages (patent [0036]). With PIPELINING (RFC 2920) the
 * envelope of the next message is sent together with the data of the current one, so that a message costs one
 * round trip.
 */
export class OutboundSession<Message extends OutboundMessage> {
  readonly #options: OutboundOptions;
  readonly #source: OutboundSource<Message>;
  #reader = new ReplyReader();
  #socket: Socket;
  readonly #replies: Reply[] = [];
  #pendingReply: { resolve: (reply: Reply) => void; reject: (reason: Error) => void } | undefined;
  #earlyReplyBytes = 0;
  /** Ends the session when a reply, or the room for more data, is not complete in time. */
  #stepTimer: NodeJS.Timeout;
  #failure: Error | undefined;
  #onDrain: (() => void) | undefined;
  #wake: (() => void) | undefined;
  #stopping = false;
  /** Whether the hop may have refused a message because TLS was skipped. Such a session takes no more messages. */
  #wantsTls = false;
  #extensions: Extensions = { pipelining: false, eightBit: false, size: false, startTls: false };
  /** The messages in flight that are sent in another form than they are stored. */
  readonly #converted = new Map<Message, Buffer>();
  /** The memory of the one message that is converted. */
  #reservation: Reservation | undefined;
  /** A message in flight that is converted when the one before it is finished. */
  #heldBack: Message | undefined;
  /** Messages that were taken from the source and have no results yet. */
  readonly #inFlight: Message[] = [];
  #doneCount = 0;

  constructor(options: OutboundOptions, source: OutboundSource<Message>) {
    this.#options = options;
    this.#source = source;
    this.#socket = connect({ host: options.host, port: options.port, noDelay: true });
    this.#socket.setTimeout(options.connectTimeoutMs);
    this.#listen(this.#socket);
    this.#stepTimer = this.#startStepTimer(options.connectTimeoutMs);
  }

  /**
   * Starts the deadline of the step that the session waits for. The time-out of the socket is none: it starts again with
   * every byte, and a hop that sends its reply byte by byte would hold the session and its message for ever.
   */
  #startStepTimer(timeoutMs: number): NodeJS.Timeout {
    return setTimeout(() => {
      if (this.#pendingReply !== undefined || this.#onDrain !== undefined) this.#onTimeout();
      else if (this.#reservation?.isWaiting)
        this.#fail(new Error('no memory for the conversion of a message'));
    }, timeoutMs);
  }

  #listen(socket: Socket): void {
    socket.on('timeout', () => this.#onTimeout());
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('drain', () => this.#onDrain?.());
    socket.on('error', (error) => this.#fail(error));
    socket.on('end', () => this.#fail(new Error('the next hop closed the connection')));
    socket.on('close', () => this.#fail(new Error('the connection was lost')));
  }

  /** Whether the session awaits no reply and can take a message at once. */
  get isIdle(): boolean {
    return this.#wake !== undefined;
  }

  /** Makes an idle session ask its source for a message. */
  wake(): void {
    this.#wake?.();
  }

  /** Makes the session finish its messages in flight, take no more, and send QUIT. */
  stop(): void {
    this.#stopping = true;
    this.wake();
  }

  /** Ends the connection at once. */
  abort(): void {
    this.#fail(new Error('aborted'));
  }

  /**
   * Delivers messages until the session ends.
   * @returns in `undelivered` the messages that were in flight when the connection failed. `deliveredAny` is
   * true if at least one message got its results.
   */
  async run(): Promise<{ failure?: Error; undelivered: Message[]; deliveredAny: boolean }> {
    try {
      await this.#greet();
      await this.#deliverAll();
      this.#socket.end('QUIT\r\n');
      return { undelivered: this.#inFlight, deliveredAny: true };
    } catch (error) {
      const failure = error instanceof Error ? error : new Error(String(error));
      return { failure, undelivered: this.#inFlight, deliveredAny: this.#doneCount > 0 };
    } finally {
      clearTimeout(this.#stepTimer);
      this.#reservation?.release();
      // A pending QUIT is still sent. Its reply has no effect.
      this.#socket.destroySoon();
      this.#failure ??= new Error('the session is over');
    }
  }

  async #greet(): Promise<void> {
    const greeting = await this.#reply();
    if (greeting.code !== 220) throw new Error(replyText(greeting));
    this.#socket.setTimeout(this.#options.replyTimeoutMs);
    clearTimeout(this.#stepTimer);
    this.#stepTimer = this.#startStepTimer(this.#options.replyTimeoutMs);
    await this.#sayHello();
    const { mode } = this.#options.tls;
    if (mode !== 'off' && this.#extensions.startTls) await this.#startTls();
    else if (mode === 'require')
      throw new Error('the next hop does not offer STARTTLS, and delivery.tls is require');
  }

  async #sayHello(): Promise<void> {
    let reply = await this.#ask(`EHLO ${this.#options.hostname}\r\n`);
    if (reply.code >= 500) reply = await this.#ask(`HELO ${this.#options.hostname}\r\n`);
    if (reply.code !== 250) throw new Error(replyText(reply));
    const keywords = reply.lines.slice(1).map((line) => line.split(' ')[0]?.toUpperCase());
    this.#extensions = {
      pipelining: keywords.includes('PIPELINING'),
      eightBit: keywords.includes('8BITMIME'),
      size: keywords.includes('SIZE'),
      startTls: keywords.includes('STARTTLS'),
    };
  }

  /**
   * Continues the session under TLS and says EHLO again (RFC 3207 4.2).
   * @throws HandshakeError when TLS cannot be agreed on, or the certificate is not the one that `require` demands
   */
  async #startTls(): Promise<void> {
    const { host, tls } = this.#options;
    const reply = await this.#ask('STARTTLS\r\n');
    if (reply.code !== 220) throw new HandshakeError(replyText(reply));
    // Someone between client and server could have added replies in plain text. They would count as sent under TLS.
    if (this.#replies.length > 0 || this.#reader.isInside)
      throw new HandshakeError('the next hop sent plain text behind its reply to STARTTLS');
    const plain = this.#socket;
    for (const event of ['timeout', 'data', 'error', 'end', 'close']) plain.removeAllListeners(event);
    plain.on('error', () => undefined);
    plain.setTimeout(0);
    this.#reader = new ReplyReader();
    const secure = connectTls({
      socket: plain,
      host,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(tls.secureContext === undefined ? {} : { secureContext: tls.secureContext }),
      rejectUnauthorized: tls.mode === 'require',
    });
    this.#socket = secure;
    secure.setTimeout(this.#options.replyTimeoutMs);
    const timer = setTimeout(
      () => secure.destroy(new Error('the next hop did not answer in time')),
      this.#options.replyTimeoutMs,
    );
    try {
      const abandoned = new AbortController();
      secure.once('close', () => abandoned.abort());
      await once(secure, 'secureConnect', { signal: abandoned.signal });
    } catch (cause) {
      secure.on('error', () => undefined);
      const { name, message } = cause as Error;
      throw new HandshakeError(`TLS failed: ${name === 'AbortError' ? 'the connection was lost' : message}`);
    } finally {
      clearTimeout(timer);
    }
    this.#listen(secure);
    await this.#sayHello();
  }

  async #deliverAll(): Promise<void> {
    let message = await this.#next();
    let commands = message === undefined ? '' : this.#envelope(message);
    while (message !== undefined) {
      const { envelope } = message;
      if (this.#extensions.pipelining && commands !== '') this.#socket.write(commands, 'latin1');
      const envelopeReply = this.#extensions.pipelining
        ? await this.#envelopeReplies(envelope)
        : await this.#envelopeOneByOne(message);
      const accepted = envelopeReply.readyForData
        ? envelopeReply.results.filter((result) => result.result === 'delivered').length
        : 0;
      let nextMessage: Message | undefined;
      if (envelopeReply.readyForData && accepted > 0) {
        nextMessage = this.#extensions.pipelining ? this.#takeAhead() : undefined;
        await this.#sendData(
          this.#dataOf(message),
          nextMessage === undefined ? '' : this.#envelope(nextMessage),
        );
        const final = await this.#reply();
        this.#finish(
          message,
          envelopeReply.results.map((result) => (result.result === 'delivered' ? resultOf(final) : result)),
        );
        commands = '';
      } else {
        // If DATA was accepted but no recipient, end the data empty. Otherwise reset the failed transaction.
        const reset = await this.#ask(envelopeReply.readyForData ? '.\r\n' : 'RSET\r\n');
        if (reset.code === 421) throw new Error(replyText(reset));
        this.#finish(message, envelopeReply.results);
      }
      message = nextMessage;
      if (message === undefined) {
        message = await this.#next();
        commands = message === undefined ? '' : this.#envelope(message);
      }
    }
  }

  #envelope(message: Message): string {
    const { envelope } = message;
    const data = this.#dataOf(message);
    const size = this.#extensions.size ? ` SIZE=${data.length}` : '';
    const body = this.#extensions.eightBit && !isAscii(data) ? ' BODY=8BITMIME' : '';
    let commands = `MAIL FROM:<${envelope.sender}>${size}${body}\r\n`;
    for (const recipient of envelope.recipients) commands += `RCPT TO:<${recipient}>\r\n`;
    return `${commands}DATA\r\n`;
  }

  /** Reads the replies to a pipelined MAIL, RCPTs and DATA. `readyForData`: 354 came and the data must follow. */
  async #envelopeReplies(envelope: Envelope): Promise<{ readyForData: boolean; results: RecipientResult[] }> {
    const mail = await this.#reply();
    const results: RecipientResult[] = [];
    for (const _ of envelope.recipients) {
      const rcpt = await this.#reply();
      results.push(this.#envelopeResult(mail.code === 250 ? rcpt : mail));
    }
    return this.#withDataReply(await this.#reply(), results);
  }

  /** Sends the envelope one command at a time, for a next hop without PIPELINING. */
  async #envelopeOneByOne(message: Message): Promise<{ readyForData: boolean; results: RecipientResult[] }> {
    const commands = this.#envelope(message).split(/(?<=\n)/);
    const mail = await this.#ask(commands[0] ?? '');
    if (mail.code !== 250)
      return {
        readyForData: false,
        results: message.envelope.recipients.map(() => this.#envelopeResult(mail)),
      };
    const results: RecipientResult[] = [];
    for (const rcpt of commands.slice(1, -1)) results.push(this.#envelopeResult(await this.#ask(rcpt)));
    if (results.every((result) => result.result !== 'delivered')) return { readyForData: false, results };
    return this.#withDataReply(await this.#ask('DATA\r\n'), results);
  }

  /**
   * Converts a reply to MAIL, RCPT or DATA. In a session that does without TLS after a failure, a refusal by policy is no
   * verdict on the message, because the hop may take it under TLS. The message is deferred, and the session takes no more.
   * @throws Error for 530: the hop takes no mail at all without TLS (RFC 3207 4)
   */
  #envelopeResult(reply: Reply): RecipientResult {
    const result = resultOf(reply);
    if (this.#options.isTlsSkipped !== true || result.result !== 'refused') return result;
    if (reply.code === 530) throw new Error(result.reason);
    if (!/^5\.7\.\d/.test(reply.lines[0] ?? '')) return result;
    this.#wantsTls = true;
    return { result: 'deferred', reason: result.reason };
  }

  #withDataReply(
    reply: Reply,
    results: RecipientResult[],
  ): { readyForData: boolean; results: RecipientResult[] } {
    if (reply.code === 354) return { readyForData: true, results };
    const isAnyDelivered = results.some(({ result }) => result === 'delivered');
    if (!isAnyDelivered) return { readyForData: false, results };
    const result = this.#envelopeResult(reply);
    // A 2xx to DATA is no acceptance: the message has not been sent.
    const refusal: RecipientResult =
      result.result === 'delivered' ? { result: 'deferred', reason: replyText(reply) } : result;
    return {
      readyForData: false,
      results: results.map((one) => (one.result === 'delivered' ? refusal : one)),
    };
  }

  /** Sends a message no faster than the next hop takes it, so that its wire form is never in memory as a whole. */
  async #sendData(data: Buffer, nextCommands: string): Promise<void> {
    const next = Buffer.from(nextCommands, 'latin1');
    this.#checkNoAcceptance();
    if (data.length <= MAX_COPY_BYTES) {
      this.#socket.write(Buffer.concat([...dotStuff(data), next]));
      return;
    }
    for (const block of dotStuff(data)) {
      this.#checkNoAcceptance();
      if (!this.#socket.write(block)) await this.#drained();
      if (this.#failure !== undefined) throw this.#failure;
    }
    if (next.length > 0) this.#socket.write(next);
  }

  /** @throws Error if the hop has accepted the message before its end. It may refuse it at any time. */
  #checkNoAcceptance(): void {
    const [early] = this.#replies;
    if (early !== undefined && early.code < 400)
      throw new Error('the next hop answered more than it was asked');
  }

  async #drained(): Promise<void> {
    if (this.#failure !== undefined) return;
    await new Promise<void>((resolve) => {
      this.#stepTimer.refresh();
      this.#onDrain = resolve;
    });
    this.#onDrain = undefined;
  }

  /** Whether the session takes no more messages. */
  get #isLast(): boolean {
    return this.#stopping || this.#wantsTls;
  }

  #takeIfAvailable(): Message | undefined {
    if (this.#isLast || this.#doneCount + this.#inFlight.length >= this.#options.messagesPerSession)
      return undefined;
    const message = this.#source.next();
    if (message !== undefined) this.#inFlight.push(message);
    return message;
  }

  /** Takes a message while another is sent. One that needs a conversion waits: two of a session could wait for each other. */
  #takeAhead(): Message | undefined {
    const message = this.#takeIfAvailable();
    if (message === undefined || !this.#needsConversion(message)) return message;
    this.#heldBack = message;
    return undefined;
  }

  #needsConversion(message: Message): boolean {
    return !this.#extensions.eightBit && !isAscii(message.data);
  }

  /** Converts a message to 7-bit bytes. Returns false if that is not possible. @throws Error if the session ended meanwhile */
  async #convert(message: Message): Promise<boolean> {
    this.#reservation = this.#options.conversions.reserve(maxSevenBitBytes(message.data.length));
    this.#stepTimer.refresh();
    await this.#reservation.ready;
    const checkpoint = async () => {
      await nextTurn();
      if (this.#failure !== undefined) throw this.#failure;
    };
    if (this.#failure !== undefined) throw this.#failure;
    const converted = await toSevenBit(message.data, checkpoint);
    if (converted !== undefined) this.#converted.set(message, converted);
    return converted !== undefined;
  }

  /** Returns the message in the form in which it is sent. */
  #dataOf(message: Message): Buffer {
    return this.#converted.get(message) ?? message.data;
  }

  /** Waits for the next message. Returns undefined if the session must end. */
  async #next(): Promise<Message | undefined> {
    const idleSinceMs = performance.now();
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const message = this.#heldBack ?? this.#takeIfAvailable();
      this.#heldBack = undefined;
      if (message !== undefined && this.#needsConversion(message) && !(await this.#convert(message))) {
        this.#finish(
          message,
          message.envelope.recipients.map(() => NEEDS_EIGHT_BIT),
        );
        continue;
      }
      const isOver = this.#isLast || this.#doneCount >= this.#options.messagesPerSession;
      const leftMs = this.#options.keepIdleMs - (performance.now() - idleSinceMs);
      if (message !== undefined || isOver || leftMs <= 0) return message;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
  }

  #finish(message: Message, results: RecipientResult[]): void {
    this.#inFlight.splice(this.#inFlight.indexOf(message), 1);
    this.#converted.delete(message);
    // Only one message at a time is converted, and no other is sent meanwhile.
    this.#reservation?.release();
    this.#reservation = undefined;
    this.#doneCount += 1;
    this.#source.done(message, results);
  }

  #ask(command: string): Promise<Reply> {
    this.#socket.write(command, 'latin1');
    return this.#reply();
  }

  #reply(): Promise<Reply> {
    const reply = this.#replies.shift();
    if (this.#replies.length === 0) this.#earlyReplyBytes = 0;
    if (reply !== undefined) return Promise.resolve(reply);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#stepTimer.refresh();
      this.#pendingReply = { resolve, reject };
    });
  }

  #onData(chunk: Buffer): void {
    try {
      for (const reply of this.#reader.take(chunk)) {
        const waiting = this.#pendingReply;
        this.#pendingReply = undefined;
        if (waiting !== undefined) waiting.resolve(reply);
        else if (this.isIdle) this.#fail(new Error(replyText(reply)));
        else this.#replies.push(reply);
      }
      if (this.#replies.length > 0) this.#earlyReplyBytes += chunk.length;
      if (this.#earlyReplyBytes > MAX_EARLY_REPLY_BYTES)
        throw new Error('the next hop answered more than it was asked');
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #onTimeout(): void {
    if (!this.isIdle) this.#fail(new Error('the next hop did not answer in time'));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    const waiting = this.#pendingReply;
    this.#pendingReply = undefined;
    waiting?.reject(this.#failure);
    this.#onDrain?.();
    this.#reservation?.release();
    this.wake();
    this.#socket.destroy();
  }
}

/** Converts a reply: 2xx means delivered, 5xx refused, and any other code deferred. */
function resultOf(reply: Reply): RecipientResult {
  if (reply.code >= 200 && reply.code < 300) return { result: 'delivered' };
  return { result: reply.code >= 500 ? 'refused' : 'deferred', reason: replyText(reply) };
}
