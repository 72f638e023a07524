import { connect, type Socket } from 'node:net';
import { dotStuff, type Reply, ReplyReader, replyText } from './reply-reader.js';
import type { Envelope } from './routing.js';

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
/** Maximum size of the replies that came before they were asked for. A server that sends more does not speak SMTP. */
const MAX_EARLY_REPLY_BYTES = 2 ** 20;

interface Extensions {
  pipelining: boolean;
  eightBit: boolean;
  size: boolean;
}

/**
 * A connection to the next hop that carries many messages (patent [0036]). With PIPELINING (RFC 2920) the
 * envelope of the next message is sent together with the data of the current one, so that a message costs one
 * round trip.
 */
export class OutboundSession<Message extends OutboundMessage> {
  readonly #options: OutboundOptions;
  readonly #source: OutboundSource<Message>;
  readonly #reader = new ReplyReader();
  readonly #socket: Socket;
  readonly #replies: Reply[] = [];
  #pendingReply: { resolve: (reply: Reply) => void; reject: (reason: Error) => void } | undefined;
  #earlyReplyBytes = 0;
  #failure: Error | undefined;
  #onDrain: (() => void) | undefined;
  #wake: (() => void) | undefined;
  #stopping = false;
  #extensions: Extensions = { pipelining: false, eightBit: false, size: false };
  /** Messages that were taken from the source and have no results yet. */
  readonly #inFlight: Message[] = [];
  #doneCount = 0;

  constructor(options: OutboundOptions, source: OutboundSource<Message>) {
    this.#options = options;
    this.#source = source;
    this.#socket = connect({ host: options.host, port: options.port, noDelay: true });
    this.#socket.setTimeout(options.connectTimeoutMs);
    this.#socket.on('timeout', () => this.#onTimeout());
    this.#socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    this.#socket.on('drain', () => this.#onDrain?.());
    this.#socket.on('error', (error) => this.#fail(error));
    this.#socket.on('end', () => this.#fail(new Error('the next hop closed the connection')));
    this.#socket.on('close', () => this.#fail(new Error('the connection was lost')));
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
      // A pending QUIT is still sent. Its reply has no effect.
      this.#socket.destroySoon();
      this.#failure ??= new Error('the session is over');
    }
  }

  async #greet(): Promise<void> {
    const greeting = await this.#reply();
    if (greeting.code !== 220) throw new Error(replyText(greeting));
    this.#socket.setTimeout(this.#options.replyTimeoutMs);
    let reply = await this.#ask(`EHLO ${this.#options.hostname}\r\n`);
    if (reply.code >= 500) reply = await this.#ask(`HELO ${this.#options.hostname}\r\n`);
    if (reply.code !== 250) throw new Error(replyText(reply));
    const keywords = reply.lines.slice(1).map((line) => line.split(' ')[0]?.toUpperCase());
    this.#extensions = {
      pipelining: keywords.includes('PIPELINING'),
      eightBit: keywords.includes('8BITMIME'),
      size: keywords.includes('SIZE'),
    };
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
        nextMessage = this.#extensions.pipelining ? this.#takeIfAvailable() : undefined;
        await this.#sendData(message.data, nextMessage === undefined ? '' : this.#envelope(nextMessage));
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

  #envelope({ envelope, data }: Message): string {
    const size = this.#extensions.size ? ` SIZE=${data.length}` : '';
    const body = this.#extensions.eightBit ? ' BODY=8BITMIME' : '';
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
      results.push(resultOf(mail.code === 250 ? rcpt : mail));
    }
    return withDataReply(await this.#reply(), results);
  }

  /** Sends the envelope one command at a time, for a next hop without PIPELINING. */
  async #envelopeOneByOne(message: Message): Promise<{ readyForData: boolean; results: RecipientResult[] }> {
    const commands = this.#envelope(message).split(/(?<=\n)/);
    const mail = await this.#ask(commands[0] ?? '');
    if (mail.code !== 250)
      return { readyForData: false, results: message.envelope.recipients.map(() => resultOf(mail)) };
    const results: RecipientResult[] = [];
    for (const rcpt of commands.slice(1, -1)) results.push(resultOf(await this.#ask(rcpt)));
    if (results.every((result) => result.result !== 'delivered')) return { readyForData: false, results };
    return withDataReply(await this.#ask('DATA\r\n'), results);
  }

  /** Sends a message no faster than the next hop takes it, so that its wire form is never in memory as a whole. */
  async #sendData(data: Buffer, nextCommands: string): Promise<void> {
    const next = Buffer.from(nextCommands, 'latin1');
    if (data.length <= MAX_COPY_BYTES) {
      this.#socket.write(Buffer.concat([...dotStuff(data), next]));
      return;
    }
    for (const block of dotStuff(data)) {
      if (!this.#socket.write(block)) await this.#drained();
      if (this.#failure !== undefined) throw this.#failure;
    }
    if (next.length > 0) this.#socket.write(next);
  }

  async #drained(): Promise<void> {
    if (this.#failure !== undefined) return;
    await new Promise<void>((resolve) => {
      this.#onDrain = resolve;
    });
    this.#onDrain = undefined;
  }

  #takeIfAvailable(): Message | undefined {
    if (this.#stopping || this.#doneCount + this.#inFlight.length >= this.#options.messagesPerSession)
      return undefined;
    const message = this.#source.next();
    if (message !== undefined) this.#inFlight.push(message);
    return message;
  }

  /** Waits for the next message. Returns undefined if the session must end. */
  async #next(): Promise<Message | undefined> {
    const idleSinceMs = performance.now();
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const message = this.#takeIfAvailable();
      const isOver = this.#stopping || this.#doneCount >= this.#options.messagesPerSession;
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
    this.wake();
    this.#socket.destroy();
  }
}

function withDataReply(
  reply: Reply,
  results: RecipientResult[],
): { readyForData: boolean; results: RecipientResult[] } {
  if (reply.code === 354) return { readyForData: true, results };
  // A 2xx to DATA is no acceptance: the message has not been sent.
  const refusal: RecipientResult = {
    result: reply.code >= 500 ? 'refused' : 'deferred',
    reason: replyText(reply),
  };
  return {
    readyForData: false,
    results: results.map((result) => (result.result === 'delivered' ? refusal : result)),
  };
}

/** Converts a reply: 2xx means delivered, 5xx refused, and any other code deferred. */
function resultOf(reply: Reply): RecipientResult {
  if (reply.code >= 200 && reply.code < 300) return { result: 'delivered' };
  return { result: reply.code >= 500 ? 'refused' : 'deferred', reason: replyText(reply) };
}
