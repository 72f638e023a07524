import type { Socket } from 'node:net';
import { type SecureContext, TLSSocket } from 'node:tls';
import type { EnqueueOutcome } from '../../queue/types.js';
import { BodyBuffer, type SegmentPool } from './body-buffer.js';
import { type Command, parseCommand } from './command.js';
import { DataReader, type MailData } from './data-reader.js';
import type { Holding, MemoryBudget } from './memory-budget.js';
import { countHops, receivedHeader, type TraceIds } from './trace.js';
import type { Turns } from './turns.js';

/** The part of the gateway that a session uses. */
export interface SessionHost {
  hostname: string;
  maxMessageBytes: number;
  maxRecipients: number;
  /** Number of Received headers from which on a message counts as looping. */
  maxHops: number;
  idleTimeoutMs: number;
  commandTimeoutMs: number;
  dataTimeoutMs: number;
  minDataBytesPerSecond: number;
  sessionTimeoutMs: number;
  maxErrors: number;
  maxCommandsPerMessage: number;
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

/** What all sessions of a worker share. */
export interface SharedResources {
  budget: MemoryBudget;
  pool: SegmentPool;
  turns: Turns;
  /** Sessions whose pipelined commands wait because the client reads no replies, the one that waits longest first. */
  waiting: Set<InboundSession>;
  /**
   * Largest size of `waiting`. Each takes up to 128 KiB, and what the system buffers. The one that waits longest is ended for
   * a new one. A client that reads its replies only waits for its turn.
   */
  maxUnreadSessions: number;
  /** Returns the time in milliseconds during which the worker served its clients. It stands still while it cannot. */
  clockMs: () => number;
}

/** Maximum length of a command line. RFC 5321 4.5.3.1.4 requires 512 bytes plus the length of the parameters. */
const MAX_LINE_BYTES = 2048;
/** Length of the name in EHLO that a session keeps. A longer one is no host name; see the trace header. */
const MAX_HELO_LENGTH = 256;
/** Longest line that is skipped. A client that sends more does not speak SMTP. */
const MAX_SKIPPED_BYTES = 1024 * 1024;
/**
 * Number of trace headers of this queue from which on a message counts as looping. A filter beside the gateway gives
 * mail back once; a next hop that leads here gives it back for ever.
 */
const MAX_OWN_HOPS = 5;
/** Number of wrong commands before EHLO after which the session ends: such a client does not speak SMTP. */
const MAX_ERRORS_BEFORE_EHLO = 5;
/** Number of pipelined commands after which other sessions have their turn. */
const COMMANDS_PER_TURN = 24;
/** Size of a message, in bytes, from which on other sessions have their turn after each chunk. */
const BULK_BYTES = 64 * 1024;
/** Number of bytes that a socket buffers at most while it is paused; see the option `highWaterMark`. */
export const READ_BUFFER_BYTES = 16 * 1024;
/** Size of pipelined commands, in bytes, from which on they wait for a turn at once. */
const MANY_COMMANDS_BYTES = 4096;
/** Number of errors that count as much as a turn. */
const ERRORS_PER_TURN = 8;
/** Size of the replies that are collected for one write. A client that reads none is not answered beyond it. */
const MAX_REPLY_BYTES = 4096;
/** Bytes that a client may send after this side is closed. */
const MAX_DROPPED_BYTES = 64 * 1024;
/**
 * Bytes that are taken from the budget for an address, in addition to its characters. An address takes less, but the
 * texts of its command also stay in memory until the garbage collector runs.
 */
const ADDRESS_OVERHEAD_BYTES = 1024;
const TIMEOUT_REPLY = '421 4.4.2 Timeout';
const NO_MEMORY = '452 4.3.1 No memory for this message now, try again later';
const SHUTTING_DOWN_REPLY = '421 4.3.2 Shutting down';
const EMPTY = Buffer.alloc(0);

interface Transaction {
  sender: string;
  recipients: string[];
  holding: Holding;
}

/**
 * The state of a session. `data`: `headBytes` is the size of the trace header in front of the message. `storing`: a
 * complete message has arrived and the queue has not answered yet; further input waits. `handshake`: TLS is being
 * negotiated. `closed`: input is no longer read or answered.
 */
type State =
  | { phase: 'command' }
  | { phase: 'data'; reader: DataReader; transaction: Transaction; sinceMs: number; headBytes: number }
  | { phase: 'storing' }
  | { phase: 'handshake' }
  | { phase: 'closed' };

/**
 * A connection of a client that submits mail (RFC 5321, with SIZE, PIPELINING, 8BITMIME, ENHANCEDSTATUSCODES and
 * STARTTLS).
 */
export class InboundSession {
  #socket: Socket;
  readonly #host: SessionHost;
  readonly #shared: SharedResources;
  #state: State = { phase: 'command' };
  /** The last EHLO or HELO; undefined before the first one. */
  #helo: { verb: 'EHLO' | 'HELO'; name: string } | undefined;
  #isSecure = false;
  #transaction: Transaction | undefined;
  #pending: Buffer = EMPTY;
  #replies = '';
  #errors = 0;
  /** Number of commands since the last message, without the accepted recipients. */
  #commands = 0;
  #droppedBytes = 0;
  /** Size of the part of a line that was dropped because the line is too long. */
  #skippedBytes = 0;
  /** Bytes of a large message since the session's last turn. */
  #bulkBytes = 0;
  /** Whether the session waits for its turn to continue with its input. */
  #awaitsTurn = false;
  /** Whether the session has its turn, and has not used it yet. */
  #hasTurn = false;
  /** Number of turns since the last message that was stored. */
  #turnCount = 0;
  readonly #openedMs: number;
  /** Time of the last command, answer or chunk of a message. */
  #activeMs: number;
  /** Time of the last command that was a step towards a message. */
  #progressMs: number;
  /** Time of the first byte of an incomplete command. */
  #lineSinceMs: number | undefined;
  #stopping = false;
  #inputEnded = false;
  readonly #onClose: () => void;

  /** Takes over the connection and sends the greeting. `onClose` is called once, when the connection is closed. */
  constructor(socket: Socket, host: SessionHost, shared: SharedResources, onClose: () => void) {
    this.#socket = socket;
    this.#host = host;
    this.#shared = shared;
    this.#onClose = onClose;
    this.#openedMs = shared.clockMs();
    this.#activeMs = this.#openedMs;
    this.#progressMs = this.#openedMs;
    socket.setNoDelay(true);
    this.#listen(socket);
    this.#reply(`220 ${host.hostname} ESMTP`);
    this.#flush();
  }

  #listen(socket: Socket): void {
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('drain', () => {
      this.#shared.waiting.delete(this);
      this.#processInput();
    });
    socket.on('end', () => this.#onEnd());
    // A reset means that the client has disconnected. The `close` event follows.
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#toClosed();
      this.#onClose();
    });
  }

  /** Continues the session under TLS, as a new one: the client has to say EHLO again (RFC 3207 4.2). */
  #startTls(secureContext: SecureContext): void {
    const plain = this.#socket;
    this.#state = { phase: 'handshake' };
    this.#helo = undefined;
    this.#resetTransaction();
    // Drop what came behind STARTTLS. Someone between client and server could have added it in plain text, and it would
    // count as sent under TLS (CVE-2011-0411).
    this.#pending = EMPTY;
    this.#flush();
    for (const event of ['data', 'drain', 'end', 'close']) plain.removeAllListeners(event);
    const options = { isServer: true, secureContext, highWaterMark: READ_BUFFER_BYTES };
    const secure = new TLSSocket(plain, options);
    this.#socket = secure;
    secure.once('secure', () => {
      if (this.#state.phase !== 'handshake') return;
      this.#state = { phase: 'command' };
      this.#isSecure = true;
      this.#activeMs = this.#shared.clockMs();
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
    this.#toClosed();
    this.#socket.destroy();
  }

  /** Ends a connection that is needed for another client. The reply is lost if the client reads nothing. */
  giveUp(reply: string): void {
    this.#toClosed();
    this.#socket.setTimeout(CLOSE_TIMEOUT_MS, () => this.#socket.destroy());
    if (this.#socket.writableLength > 0) this.#socket.destroy();
    else this.#socket.end(`${reply}\r\n`, () => this.#socket.destroy());
  }

  /**
   * Time of the last step towards a message, or undefined while a message is stored. A message that arrives slower than
   * `minDataBytesPerSecond` counts only as far as it has come at that rate.
   */
  get progressMs(): number | undefined {
    if (this.#state.phase === 'storing') return undefined;
    if (this.#state.phase !== 'data') return this.#progressMs;
    const { reader, sinceMs } = this.#state;
    return Math.min(
      this.#shared.clockMs(),
      sinceMs + (reader.wireBytes * 1000) / this.#host.minDataBytesPerSecond,
    );
  }

  /** Ends the session if one of its deadlines is over. */
  checkDeadlines(): void {
    const nowMs = this.#shared.clockMs();
    const state = this.#state;
    switch (state.phase) {
      case 'storing':
        return;
      case 'handshake':
        if (nowMs - this.#activeMs > Math.min(this.#host.idleTimeoutMs, this.#host.commandTimeoutMs))
          this.abort();
        return;
      case 'closed':
        if (nowMs - this.#activeMs > CLOSE_TIMEOUT_MS) this.#socket.destroy();
        return;
      case 'data': {
        const { dataTimeoutMs, minDataBytesPerSecond } = this.#host;
        const allowedMs = dataTimeoutMs + (state.reader.wireBytes * 1000) / minDataBytesPerSecond;
        if (nowMs - state.sinceMs > allowedMs) this.#close(`${TIMEOUT_REPLY}: the message came too slowly`);
        break;
      }
      case 'command':
        if (this.#lineSinceMs !== undefined && nowMs - this.#lineSinceMs > this.#host.commandTimeoutMs)
          this.#close(`${TIMEOUT_REPLY}: the command came too slowly`);
        else if (nowMs - this.#openedMs > this.#host.sessionTimeoutMs)
          this.#close(`${TIMEOUT_REPLY}: the session took too long`);
        break;
    }
    if (nowMs - this.#activeMs <= this.#host.idleTimeoutMs) return;
    // A client that does not read its replies would not read this one.
    if (this.#socket.writableNeedDrain) this.abort();
    else this.#close('421 4.4.2 Idle for too long');
  }

  #toClosed(): void {
    if (this.#state.phase === 'data') this.#release(this.#state);
    if (this.#transaction !== undefined) this.#transaction.holding.release();
    this.#transaction = undefined;
    this.#state = { phase: 'closed' };
    this.#pending = EMPTY;
    this.#shared.waiting.delete(this);
    this.#activeMs = this.#shared.clockMs();
  }

  #release({ reader, transaction }: { reader: DataReader; transaction: Transaction }): void {
    reader.drop();
    transaction.holding.release();
  }

  /** Gives the memory of the message in progress to a smaller message. */
  #onEvict(holding: Holding): void {
    if (this.#state.phase === 'data' && this.#state.transaction.holding === holding)
      this.#release(this.#state);
    else if (this.#transaction?.holding === holding) this.#close(`421${NO_MEMORY.slice(3)}`);
  }

  #onData(chunk: Buffer): void {
    if (this.#state.phase === 'closed') {
      this.#droppedBytes += chunk.length;
      if (this.#droppedBytes > MAX_DROPPED_BYTES) this.#socket.destroy();
      return;
    }
    if (this.#state.phase === 'data') this.#activeMs = this.#shared.clockMs();
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    this.#processInput();
  }

  #onEnd(): void {
    this.#inputEnded = true;
    // An incomplete message is dropped. A message that is being stored still gets its reply.
    if (!this.#isStoring()) this.#close();
  }

  /** Handles all input that can be handled now, sends the replies, and pauses the input if the client has to wait. */
  #processInput(): void {
    if (this.#awaitsTurn) return;
    let canContinue = true;
    let commands = 0;
    const isMuch = this.#state.phase === 'command' && this.#pending.length > MANY_COMMANDS_BYTES;
    if (isMuch && !this.#hasTurn) this.#awaitTurn();
    if (this.#pending.length > 0) this.#hasTurn = false;
    while (canContinue && this.#pending.length > 0 && !this.#socket.writableNeedDrain && !this.#awaitsTurn) {
      if (this.#state.phase === 'data') this.#takeData(this.#state);
      else canContinue = this.#state.phase === 'command' && this.#takeLine();
      commands += 1;
      if (commands === COMMANDS_PER_TURN) this.#awaitTurn();
      if (this.#replies.length > MAX_REPLY_BYTES) this.#flush();
    }
    this.#flush();
    const isStoring = this.#state.phase === 'storing';
    const mustWait =
      this.#awaitsTurn || this.#socket.writableNeedDrain || (isStoring && this.#pending.length > 0);
    if (!mustWait || this.#state.phase === 'closed') {
      this.#shared.waiting.delete(this);
      if (this.#socket.isPaused()) this.#socket.resume();
      return;
    }
    this.#socket.pause();
    if (this.#pending.length === 0) return;
    if (this.#state.phase === 'command' && this.#socket.writableNeedDrain) this.#waitForReader();
    // A paused socket stops reading once its unprocessed input was put back into it.
    if (!this.isFinished) this.#socket.unshift(this.#pending);
    this.#pending = EMPTY;
  }

  /** Enters the session among those whose client reads no replies, and ends the one that waits longest if they are too many. */
  #waitForReader(): void {
    const { waiting, maxUnreadSessions } = this.#shared;
    waiting.delete(this);
    waiting.add(this);
    const [longest] = waiting;
    if (waiting.size > maxUnreadSessions) longest?.giveUp('421 4.3.2 Too many pipelined commands');
  }

  #awaitTurn(): void {
    if (this.#awaitsTurn || this.#state.phase === 'closed') return;
    this.#awaitsTurn = true;
    this.#shared.turns.wait(this.#turnCount + Math.floor(this.#errors / ERRORS_PER_TURN), () => {
      this.#awaitsTurn = false;
      this.#hasTurn = true;
      this.#turnCount += 1;
      this.#processInput();
    });
  }

  #takeData({ reader, transaction, headBytes }: State & { phase: 'data' }): void {
    const isBulk = reader.wireBytes >= BULK_BYTES;
    const chunk = this.#pending;
    // A socket that is paused reads one more chunk of 64 KiB, unless it has got back as much as it buffers at most.
    // So a thousand waiting sessions keep 16 MiB instead of 64 MiB.
    const heldBytes = isBulk && chunk.length >= 2 * READ_BUFFER_BYTES ? READ_BUFFER_BYTES : 0;
    const used = reader.take(chunk.subarray(0, chunk.length - heldBytes));
    if (used !== undefined) {
      this.#pending = chunk.subarray(used);
      this.#bulkBytes = 0;
      this.#finishMessage(reader.result(), transaction, headBytes);
      return;
    }
    this.#pending = heldBytes === 0 ? EMPTY : Buffer.from(chunk.subarray(chunk.length - heldBytes));
    if (isBulk) this.#bulkBytes += chunk.length;
    if (heldBytes === 0 && this.#bulkBytes < BULK_BYTES) return;
    this.#bulkBytes = 0;
    this.#awaitTurn();
  }

  #takeLine(): boolean {
    const end = this.#pending.indexOf(0x0a);
    if (end < 0) this.#lineSinceMs ??= this.#shared.clockMs();
    if (this.#skippedBytes > 0) return this.#skipLine(end);
    if (end < 0 && this.#pending.length <= MAX_LINE_BYTES) return false;
    if (end < 0 || end > MAX_LINE_BYTES) return this.#skipLine(end);
    const line = this.#pending.toString('latin1', 0, end);
    this.#pending = this.#pending.subarray(end + 1);
    this.#lineSinceMs = undefined;
    this.#activeMs = this.#shared.clockMs();
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

  /** Drops what has arrived of a line that is too long. The reply comes at its end, so that one line gets one reply. */
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
    this.#lineSinceMs = undefined;
    this.#activeMs = this.#shared.clockMs();
    this.#execute({ verb: 'error', reply: `500 5.5.2 Line longer than ${MAX_LINE_BYTES} bytes` });
    return true;
  }

  #execute(command: Command): void {
    this.#commands += 1;
    if (this.#commands > this.#host.maxCommandsPerMessage) {
      this.#close('421 4.7.0 Too many commands without a message');
      return;
    }
    switch (command.verb) {
      case 'error':
        this.#refuse(command.reply);
        break;
      case 'EHLO':
      case 'HELO':
        if (this.#helo === undefined) this.#progressMs = this.#shared.clockMs();
        this.#helo = {
          verb: command.verb,
          // A copy, as in #rcpt: a part of the line would keep all of it in memory.
          name: Buffer.from(command.name.slice(0, MAX_HELO_LENGTH), 'latin1').toString('latin1'),
        };
        this.#resetTransaction();
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
        this.#resetTransaction();
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
    const { budget } = this.#shared;
    const holding = budget.open(() => this.#onEvict(holding));
    if (!budget.hasRoomFor(sizeBytes) || !holding.take(sender.length + ADDRESS_OVERHEAD_BYTES)) {
      holding.release();
      return NO_MEMORY;
    }
    this.#transaction = { sender, recipients: [], holding };
    this.#progressMs = this.#shared.clockMs();
    return '250 2.1.0 Ok';
  }

  #resetTransaction(): void {
    this.#transaction?.holding.release();
    this.#transaction = undefined;
  }

  #rcpt(recipient: string, domain: string): string {
    const recipients = this.#transaction?.recipients;
    if (recipients === undefined) return '503 5.5.1 MAIL first';
    if (!this.#host.hasRoute(domain)) return `550 5.1.2 No route to ${domain || 'the next hop'}`;
    if (recipients.length >= this.#host.maxRecipients) return '452 4.5.3 Too many recipients';
    if (this.#transaction?.holding.take(recipient.length + ADDRESS_OVERHEAD_BYTES) !== true) return NO_MEMORY;
    // The text of a command is up to 2048 bytes, and its parts keep it in memory. A copy keeps only the address.
    recipients.push(Buffer.from(recipient, 'latin1').toString('latin1'));
    this.#commands -= 1;
    this.#progressMs = this.#shared.clockMs();
    return '250 2.1.5 Ok';
  }

  #data(): string {
    const transaction = this.#transaction;
    if (transaction === undefined) return '503 5.5.1 MAIL first';
    if (transaction.recipients.length === 0) return '554 5.5.1 No valid recipients';
    // The first bytes of the message must fit, or larger messages must be there that give way to it.
    if (!this.#shared.budget.hasRoomFor(1)) return NO_MEMORY;
    this.#transaction = undefined;
    const head = this.#traceHeader();
    const body = new BodyBuffer(transaction.holding, this.#shared.pool, head);
    const reader = new DataReader(this.#host.maxMessageBytes, body);
    if (!transaction.holding.take(head.length)) reader.drop();
    this.#activeMs = this.#shared.clockMs();
    this.#state = { phase: 'data', reader, transaction, sinceMs: this.#activeMs, headBytes: head.length };
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
    this.#commands = 0;
    this.#activeMs = this.#shared.clockMs();
    this.#progressMs = this.#activeMs;
    const { holding } = transaction;
    if (message.kind !== 'data') {
      holding.release();
      this.#answerMessage(this.#dataRefusal(message.kind));
      return;
    }
    const loopReply = this.#loopReply(message.data.subarray(headBytes));
    if (loopReply !== undefined) {
      holding.release();
      this.#answerMessage(loopReply);
      return;
    }
    this.#state = { phase: 'storing' };
    holding.isPinned = true;
    this.#host
      .store(transaction.sender, transaction.recipients, message.data)
      .finally(() => holding.release())
      .then(
        (outcome) => this.#stored(outcome),
        (reason) => {
          this.abort();
          this.#host.fail(reason);
        },
      );
  }

  #dataRefusal(kind: Exclude<MailData['kind'], 'data'>): string {
    if (kind === 'too-large') return this.#tooLarge();
    if (kind === 'no-memory') return NO_MEMORY;
    return '554 5.6.0 The message holds a CR or LF that is no CRLF (RFC 5321 2.3.8)';
  }

  #stored(outcome: EnqueueOutcome): void {
    if (this.#state.phase === 'closed') return;
    this.#state = { phase: 'command' };
    this.#activeMs = this.#shared.clockMs();
    this.#progressMs = this.#activeMs;
    if (outcome.outcome === 'indefinite') {
      // Neither a positive nor a negative reply would be true. Without a reply the client sends the message again.
      this.#close();
      return;
    }
    const isStored = outcome.outcome === 'confirmed';
    if (isStored) this.#turnCount = 0;
    this.#answerMessage(
      isStored ? `250 2.0.0 Ok: queued as ${outcome.numbers.join(',')}` : this.#rejection(outcome),
    );
    this.#processInput();
    if (this.#inputEnded && !this.#isStoring()) this.#close();
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
    const maxErrors = this.#helo !== undefined ? this.#host.maxErrors : MAX_ERRORS_BEFORE_EHLO;
    if (this.#errors >= maxErrors) this.#close(`${reply}\r\n421 4.7.0 Too many errors`);
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
    this.#toClosed();
    this.#socket.end();
    this.#socket.resume();
  }
}

/** Time that a client may keep its side open after this side is closed, in milliseconds. */
const CLOSE_TIMEOUT_MS = 5000;
