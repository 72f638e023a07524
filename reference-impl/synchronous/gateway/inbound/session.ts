import type { Socket } from 'node:net';
import { type SecureContext, TLSSocket } from 'node:tls';
import type { EnqueueOutcome } from '../../queue/types.js';
import { type Command, parseCommand } from './command.js';
import { DataReader, type MailData } from './data-reader.js';
import { countHops, receivedHeader, type TraceIds } from './trace.js';

/** The part of the gateway that a session uses. */
export interface SessionHost {
  hostname: string;
  maxMessageBytes: number;
  maxRecipients: number;
  /** Number of Received headers from which on a message counts as looping. */
  maxHops: number;
  idleTimeoutMs: number;
  traceIds: TraceIds;
  /** Returns the certificate and key for STARTTLS; undefined: STARTTLS is not offered. */
  secureContext: () => SecureContext | undefined;
  /** Returns whether mail for a lower-case domain can be delivered. */
  hasRoute: (domain: string) => boolean;
  /** Stores a message for all its recipients or for none. */
  store: (sender: string, recipients: readonly string[], data: Buffer) => Promise<EnqueueOutcome>;
  /** Reports that the queue failed during a store. The gateway cannot continue. */
  fail: (reason: unknown) => void;
}

/** Maximum length of a command line. RFC 5321 4.5.3.1.4 requires 512 bytes plus the length of the parameters. */
const MAX_LINE_BYTES = 2048;
/** Longest line that is skipped. A client that sends more does not speak SMTP. */
const MAX_SKIPPED_BYTES = 1024 * 1024;
/** Input that is buffered while a message is being stored. A client that sends more has to wait. */
const MAX_PENDING_BYTES = 64 * 1024;
/** Number of wrong commands after which the session ends: such a client does not speak SMTP. */
const MAX_ERRORS = 100;
/**
 * Number of times that a message may come back to this queue. A filter beside the gateway gives mail back once; a next hop
 * that leads here gives it back forever.
 */
const MAX_OWN_HOPS = 5;
const SHUTTING_DOWN_REPLY = '421 4.3.2 Shutting down';
const EMPTY = Buffer.alloc(0);

interface Transaction {
  sender: string;
  recipients: string[];
}

/**
 * The state of a session. `data`: `headBytes` is the size of the trace header in front of the message. `storing`: a complete
 * message has arrived and the queue has not answered yet; further input waits. `handshake`: TLS is being negotiated.
 * `closed`: input is no longer read or answered.
 */
type State =
  | { phase: 'command' }
  | { phase: 'data'; reader: DataReader; transaction: Transaction; headBytes: number }
  | { phase: 'storing' }
  | { phase: 'handshake' }
  | { phase: 'closed' };

/**
 * A connection of a client that submits mail (RFC 5321, with SIZE, PIPELINING, 8BITMIME, ENHANCEDSTATUSCODES and STARTTLS).
 */
export class InboundSession {
  #socket: Socket;
  readonly #host: SessionHost;
  #state: State = { phase: 'command' };
  /** The last EHLO or HELO; undefined before the first one. */
  #helo: { verb: 'EHLO' | 'HELO'; name: string } | undefined;
  #isSecure = false;
  #transaction: Transaction | undefined;
  #pending: Buffer = EMPTY;
  #replies = '';
  #errors = 0;
  /** Size of the part of a line that was dropped because the line is too long. */
  #skippedBytes = 0;
  #stopping = false;
  #inputEnded = false;
  readonly #onClose: () => void;

  /** Takes over the connection and sends the greeting. `onClose` is called once, when the connection is closed. */
  constructor(socket: Socket, host: SessionHost, onClose: () => void) {
    this.#socket = socket;
    this.#host = host;
    this.#onClose = onClose;
    socket.setNoDelay(true);
    this.#listen(socket);
    this.#reply(`220 ${host.hostname} ESMTP`);
    this.#flush();
  }

  #listen(socket: Socket): void {
    socket.setTimeout(this.#host.idleTimeoutMs, () => this.#onIdle());
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('drain', () => this.#resume());
    socket.on('end', () => this.#onEnd());
    // A reset means that the client has disconnected. The `close` event follows.
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#state = { phase: 'closed' };
      this.#onClose();
    });
  }

  /** Continues the session under TLS, as a new one: the client has to say EHLO again (RFC 3207 4.2). */
  #startTls(secureContext: SecureContext): void {
    const plain = this.#socket;
    this.#state = { phase: 'handshake' };
    this.#helo = undefined;
    this.#transaction = undefined;
    // Drop what came behind STARTTLS. Someone between client and server could have added it in plain text, and it would
    // count as sent under TLS (CVE-2011-0411).
    this.#pending = EMPTY;
    this.#flush();
    for (const event of ['data', 'drain', 'end', 'close', 'timeout']) plain.removeAllListeners(event);
    plain.setTimeout(0);
    const secure = new TLSSocket(plain, { isServer: true, secureContext });
    this.#socket = secure;
    secure.once('secure', () => {
      if (this.#state.phase !== 'handshake') return;
      this.#state = { phase: 'command' };
      this.#isSecure = true;
      if (this.#stopping) this.#close(SHUTTING_DOWN_REPLY);
    });
    // A client that cannot agree on TLS gets no further reply, because the server cannot know what it would read.
    secure.on('_tlsError', () => secure.destroy());
    this.#listen(secure);
  }

  /** Refuses new messages. A message that is being sent or stored is finished and answered; 421 follows. */
  stop(): void {
    this.#stopping = true;
    if (this.#state.phase === 'command') this.#close(SHUTTING_DOWN_REPLY);
  }

  /** Whether all replies are sent and this side is closed. The side of the client may still be open. */
  get isFinished(): boolean {
    return this.#state.phase === 'closed';
  }

  /** Ends the connection at once, without a reply. */
  abort(): void {
    this.#state = { phase: 'closed' };
    this.#socket.destroy();
  }

  #onData(chunk: Buffer): void {
    if (this.#state.phase === 'closed') return;
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    this.#processInput();
  }

  #onEnd(): void {
    this.#inputEnded = true;
    // An incomplete message is dropped. A message that is being stored still gets its reply.
    if (!this.#isStoring()) this.#close();
  }

  #onIdle(): void {
    if (this.#state.phase === 'storing') return;
    if (this.#state.phase === 'closed' || this.#state.phase === 'handshake') this.#socket.destroy();
    else this.#close('421 4.4.2 Idle for too long');
  }

  #resume(): void {
    this.#processInput();
    if (this.#state.phase !== 'storing' && this.#socket.isPaused()) this.#socket.resume();
  }

  /** Handles all input that can be handled now and sends the replies in one write. */
  #processInput(): void {
    let canContinue = true;
    while (canContinue && this.#pending.length > 0 && !this.#socket.writableNeedDrain) {
      if (this.#state.phase === 'data') canContinue = this.#takeData(this.#state);
      else canContinue = this.#state.phase === 'command' && this.#takeLine();
    }
    this.#flush();
    if (this.#pending.length > MAX_PENDING_BYTES) this.#socket.pause();
  }

  #takeData({ reader, transaction, headBytes }: State & { phase: 'data' }): boolean {
    const used = reader.take(this.#pending);
    this.#pending = used === undefined ? EMPTY : this.#pending.subarray(used);
    if (used !== undefined) this.#finishMessage(reader.result(), transaction, headBytes);
    return true;
  }

  #takeLine(): boolean {
    const end = this.#pending.indexOf(0x0a);
    if (this.#skippedBytes > 0) return this.#skipLine(end);
    if (end < 0 && this.#pending.length <= MAX_LINE_BYTES) return false;
    if (end < 0 || end > MAX_LINE_BYTES) return this.#skipLine(end);
    const line = this.#pending.toString('latin1', 0, end);
    this.#pending = this.#pending.subarray(end + 1);
    if (this.#stopping) {
      this.#close(SHUTTING_DOWN_REPLY);
      return false;
    }
    this.#execute(
      line.endsWith('\r')
        ? parseCommand(line.slice(0, -1))
        : { verb: 'error', reply: '500 5.5.2 Lines end in CRLF' },
    );
    return true;
  }

  /** Drops a line that is too long, as far as it has arrived. Its reply comes at its end, so that one line gets one reply. */
  #skipLine(end: number): boolean {
    const size = end < 0 ? this.#pending.length : end + 1;
    this.#skippedBytes += size;
    this.#pending = this.#pending.subarray(size);
    if (this.#skippedBytes > MAX_SKIPPED_BYTES) {
      this.#close('421 4.7.0 The line does not end');
      return false;
    }
    if (end < 0) return false;
    this.#skippedBytes = 0;
    this.#execute({ verb: 'error', reply: `500 5.5.2 Line longer than ${MAX_LINE_BYTES} bytes` });
    return true;
  }

  #execute(command: Command): void {
    switch (command.verb) {
      case 'error':
        this.#refuse(command.reply);
        break;
      case 'EHLO':
      case 'HELO':
        this.#helo = command;
        this.#transaction = undefined;
        this.#reply(command.verb === 'HELO' ? `250 ${this.#host.hostname}` : this.#extensions());
        break;
      case 'MAIL':
        this.#answer(this.#mail(command.sender, command.sizeBytes));
        break;
      case 'RCPT':
        this.#answer(this.#rcpt(command.recipient, command.domain));
        break;
      case 'DATA':
        this.#answer(this.#data());
        break;
      case 'RSET':
        this.#transaction = undefined;
        this.#reply('250 2.0.0 Ok');
        break;
      case 'NOOP':
        this.#reply('250 2.0.0 Ok');
        break;
      case 'VRFY':
        this.#reply('252 2.5.0 Send some mail and see');
        break;
      case 'HELP':
        this.#reply('214 2.0.0 This server speaks SMTP as RFC 5321 defines it');
        break;
      case 'STARTTLS':
        this.#answerStartTls();
        break;
      case 'QUIT':
        this.#close('221 2.0.0 Bye');
        break;
    }
  }

  #extensions(): string {
    const { hostname, maxMessageBytes } = this.#host;
    const extensions = ['PIPELINING', `SIZE ${maxMessageBytes}`, '8BITMIME', 'ENHANCEDSTATUSCODES'];
    if (!this.#isSecure && this.#host.secureContext() !== undefined) extensions.push('STARTTLS');
    return [hostname, ...extensions]
      .map((text, at) => `250${at === extensions.length ? ' ' : '-'}${text}`)
      .join('\r\n');
  }

  #answerStartTls(): void {
    const secureContext = this.#host.secureContext();
    if (this.#isSecure) this.#refuse('503 5.5.1 TLS is active');
    else if (secureContext === undefined) this.#refuse('502 5.5.1 STARTTLS is not offered');
    else if (this.#helo?.verb !== 'EHLO') this.#refuse('503 5.5.1 EHLO first');
    else {
      this.#reply('220 2.0.0 Ready to start TLS');
      this.#startTls(secureContext);
    }
  }

  #mail(sender: string, sizeBytes: number): string {
    if (this.#helo === undefined) return '503 5.5.1 EHLO first';
    if (this.#transaction !== undefined) return '503 5.5.1 The message before is not finished';
    if (sizeBytes > this.#host.maxMessageBytes) return this.#tooLarge();
    this.#transaction = { sender, recipients: [] };
    return '250 2.1.0 Ok';
  }

  #rcpt(recipient: string, domain: string): string {
    const recipients = this.#transaction?.recipients;
    if (recipients === undefined) return '503 5.5.1 MAIL first';
    if (!this.#host.hasRoute(domain)) return `550 5.1.2 No route to ${domain || 'the next hop'}`;
    if (recipients.length >= this.#host.maxRecipients) return '452 4.5.3 Too many recipients';
    recipients.push(recipient);
    return '250 2.1.5 Ok';
  }

  #data(): string {
    const transaction = this.#transaction;
    if (transaction === undefined) return '503 5.5.1 MAIL first';
    if (transaction.recipients.length === 0) return '554 5.5.1 No valid recipients';
    this.#transaction = undefined;
    const head = this.#traceHeader();
    const reader = new DataReader(this.#host.maxMessageBytes, head);
    this.#state = { phase: 'data', reader, transaction, headBytes: head.length };
    return '354 End data with <CR><LF>.<CR><LF>';
  }

  #traceHeader(): Buffer {
    const { verb, name } = this.#helo ?? { verb: 'HELO', name: '' };
    return receivedHeader({
      heloName: name,
      clientAddress: this.#socket.remoteAddress,
      hostname: this.#host.hostname,
      protocol: verb === 'HELO' ? 'SMTP' : this.#isSecure ? 'ESMTPS' : 'ESMTP',
      id: this.#host.traceIds.next(),
      receivedAt: new Date(),
    });
  }

  /** Returns the reply to a message that loops; undefined for any other message. */
  #loopReply(message: Buffer): string | undefined {
    const { maxHops, traceIds } = this.#host;
    const { total, own } = countHops(message, traceIds.tag, maxHops);
    if (total >= maxHops)
      return `554 5.4.6 Too many hops, the message has ${maxHops} Received headers or more`;
    return own >= MAX_OWN_HOPS ? `554 5.4.6 Mail loop, the message was here ${own} times before` : undefined;
  }

  #finishMessage(message: MailData, transaction: Transaction, headBytes: number): void {
    this.#state = { phase: 'command' };
    const loopReply = message.kind === 'data' ? this.#loopReply(message.data.subarray(headBytes)) : undefined;
    if (message.kind === 'bare-line-end') {
      this.#answerMessage('554 5.6.0 The message holds a CR or LF that is no CRLF (RFC 5321 2.3.8)');
    } else if (message.kind === 'too-large') {
      this.#answerMessage(this.#tooLarge());
    } else if (loopReply !== undefined) {
      this.#answerMessage(loopReply);
    } else {
      this.#state = { phase: 'storing' };
      this.#host.store(transaction.sender, transaction.recipients, message.data).then(
        (outcome) => this.#stored(outcome),
        (reason) => {
          this.abort();
          this.#host.fail(reason);
        },
      );
    }
  }

  #stored(outcome: EnqueueOutcome): void {
    if (this.#state.phase === 'closed') return;
    this.#state = { phase: 'command' };
    if (outcome.outcome === 'indefinite') {
      // Neither a positive nor a negative reply would be true. Without a reply the client sends the message again.
      this.#close();
      return;
    }
    const isStored = outcome.outcome === 'confirmed';
    this.#answerMessage(
      isStored ? `250 2.0.0 Ok: queued as ${outcome.numbers.join(',')}` : this.#rejection(outcome),
    );
    this.#processInput();
    if (this.#inputEnded && !this.#isStoring()) this.#close();
    else if (this.#socket.isPaused() && this.#pending.length <= MAX_PENDING_BYTES) this.#socket.resume();
  }

  #isStoring(): boolean {
    return this.#state.phase === 'storing';
  }

  #rejection(outcome: EnqueueOutcome & { outcome: 'rejected' }): string {
    if (outcome.reason === 'too-large') return this.#tooLarge();
    if (outcome.reason === 'mutex-held')
      return '451 4.3.0 The queue is held by another process, try again later';
    const what = outcome.reason === 'no-space' ? 'space' : 'index entry';
    return `452 4.3.1 No free ${what} in the queue, try again later`;
  }

  #tooLarge(): string {
    return `552 5.3.4 Message too large, the limit is ${this.#host.maxMessageBytes} bytes`;
  }

  #answerMessage(reply: string): void {
    this.#reply(reply);
    if (this.#stopping) this.#close(SHUTTING_DOWN_REPLY);
  }

  /** Refuses a command and counts the error. A 5xx to a message does not count. */
  #refuse(reply: string): void {
    this.#errors += 1;
    if (this.#errors >= MAX_ERRORS) this.#close(`${reply}\r\n421 4.7.0 Too many errors`);
    else this.#reply(reply);
  }

  #answer(reply: string): void {
    if (reply.startsWith('5')) this.#refuse(reply);
    else this.#reply(reply);
  }

  #reply(line: string): void {
    this.#replies += `${line}\r\n`;
  }

  #flush(): void {
    if (this.#replies === '') return;
    const replies = this.#replies;
    this.#replies = '';
    if (this.#socket.writable) this.#socket.write(replies, 'latin1');
  }

  /**
   * Sends the pending replies and closes this side. Further input is read and dropped until the client closes too:
   * closing both directions at once would reset the connection and lose replies that the client has not read.
   */
  #close(reply?: string): void {
    if (this.#state.phase === 'closed') return;
    if (reply !== undefined) this.#reply(reply);
    this.#flush();
    this.#state = { phase: 'closed' };
    this.#pending = EMPTY;
    this.#socket.end();
    this.#socket.resume();
    this.#socket.setTimeout(Math.min(this.#host.idleTimeoutMs, CLOSE_TIMEOUT_MS));
  }
}

/** Time that a client may keep its side open after this side is closed, in milliseconds. */
const CLOSE_TIMEOUT_MS = 5000;
