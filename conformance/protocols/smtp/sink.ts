import type { AddressInfo, Socket } from 'node:net';
import { SMTPServer, type SMTPServerDataStream, type SMTPServerSession } from 'smtp-server';
import { limit } from '../../limits.js';
import { guardInput } from '../client/input-guard.js';
import { identifyDelivery } from '../identify-delivery.js';
import { recipientMessageId, recipientNumber } from '../message.js';
import type { DeliveryReply, Receiver, ReceiverOptions } from '../protocol.js';

type DataCallback = (error?: Error | null) => void;

const REPLIES: Record<Exclude<DeliveryReply['answer'], 'accept'>, { code: number; text: string }> = {
  later: { code: 451, text: 'Not now' },
  'go-away': { code: 421, text: 'Go away, and come back' },
  never: { code: 550, text: 'Never' },
};
const SESSION_GONE = 'the session ended before the acceptance was written';

/** A session of the relaying target. */
interface Session {
  socket: Socket | undefined;
  /** Sequence numbers of accepted deliveries that the target has not proven to have recorded. */
  accepted: number[];
  /** True when the target has sent QUIT. */
  hasQuit: boolean;
  /** True when the connection broke: the target was gone before it had read the last answers. */
  hasFailed: boolean;
}

/**
 * Receiver for targets that send messages: an SMTP server that accepts messages of any size and reports them.
 * The server is a third-party library, so that a wrong reading of the protocol in the kit's own client does not
 * go unnoticed.
 */
export class SmtpSink implements Receiver {
  readonly #options: ReceiverOptions;
  readonly #server: SMTPServer;
  readonly #sockets = new Map<number, Socket>();
  readonly #sessions = new Map<string, Session>();
  readonly #deliveries = new Map<string, number>();
  readonly #heldReplies: (() => void)[] = [];
  #isHolding = false;
  #closed = false;
  /** Functions that send pending answers, one for each message that waits for its answer. */
  readonly #undecided = new Set<() => void>();

  private constructor(options: ReceiverOptions) {
    this.#options = options;
    this.#server = new SMTPServer({
      name: 'sink.plugpull.test',
      disabledCommands: ['AUTH', 'STARTTLS'],
      disableReverseLookup: true,
      closeTimeout: 1000,
      maxRecipients: 100_000,
      // Read the library's log: only there it reports that a session ended in order.
      logger: { ...SILENT_LOGGER, debug: (entry: unknown) => this.#onLogEntry(entry) },
      onConnect: (session, callback) => {
        this.#startSession(session);
        callback();
      },
      onData: (stream, session, callback) => this.#readMessage(stream, session, callback),
      onClose: (session) => this.#endSession(session.id),
    });
    // Ignore broken connections here: they are frequent, and `onClose` handles their consequences.
    this.#server.on('error', () => {});
    // Keep the sockets: only the socket knows whether an answer can still be written.
    this.#server.server.on('connection', (socket) => {
      const port = socket.remotePort ?? 0;
      guardInput(socket);
      this.#sockets.set(port, socket);
      socket.once('close', () => {
        if (this.#sockets.get(port) === socket) this.#sockets.delete(port);
      });
    });
  }

  /** Starts a sink on a free port of loopback. */
  static async start(options: ReceiverOptions): Promise<SmtpSink> {
    const sink = new SmtpSink(options);
    await new Promise<void>((resolve, reject) => {
      sink.#server.server.once('error', reject);
      sink.#server.listen(0, '127.0.0.1', () => resolve());
    });
    return sink;
  }

  get sink(): string {
    // A listening TCP server's address is an AddressInfo.
    return `127.0.0.1:${(this.#server.server.address() as AddressInfo).port}`;
  }

  inDelivery(): number {
    let count = this.#undecided.size;
    for (const session of this.#sessions.values()) count += session.accepted.length;
    return count;
  }

  hold(): void {
    this.#isHolding = true;
  }

  release(): void {
    this.#isHolding = false;
    for (const proceed of this.#heldReplies.splice(0)) proceed();
  }

  /**
   * Closes all sessions and the server. The end of every outstanding delivery is reported before the promise
   * resolves, and nothing afterwards.
   */
  async close(): Promise<void> {
    this.release();
    for (const connection of this.#server.connections) connection.close();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    // End the sessions here: the library reports their ends only after the server has closed, when the recorder
    // may be closed.
    for (const decide of [...this.#undecided]) decide();
    for (const sessionId of [...this.#sessions.keys()]) this.#endSession(sessionId);
    this.#closed = true;
  }

  #startSession({ id, remotePort }: SMTPServerSession): void {
    const socket = this.#sockets.get(remotePort);
    const session: Session = { socket, accepted: [], hasQuit: false, hasFailed: false };
    socket?.once('error', () => {
      session.hasFailed = true;
    });
    this.#sessions.set(id, session);
  }

  #readMessage(stream: SMTPServerDataStream, session: SMTPServerSession, callback: DataCallback): void {
    const chunks: Buffer[] = [];
    const addresses = session.envelope.rcptTo.map(({ address }) => address);
    const socket = this.#sessions.get(session.id)?.socket;
    // The deadline holds for the whole message: a client that sends a byte a minute never exceeds a timeout of silence.
    const deadline = setTimeout(() => socket?.destroy(), limit('delivery-ms'));
    deadline.unref();
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', () => {
      clearTimeout(deadline);
      this.#receive(Buffer.concat(chunks), addresses, session.id, callback);
    });
  }

  #receive(bytes: Buffer, addresses: string[], sessionId: string, callback: DataCallback): void {
    if (this.#closed) return;
    const recipients = addresses.map((address) => recipientNumber(address) ?? 0);
    const outsideId = recipientMessageId(addresses[0] ?? '');
    const { intact: _, ...identity } = identifyDelivery(bytes, this.#options, outsideId);
    const { id } = identity;
    const sequence = this.#options.receipts.delivered({ ...identity, sizeBytes: bytes.length, recipients });
    const key = id ?? '';
    const delivery = (this.#deliveries.get(key) ?? 0) + 1;
    this.#deliveries.set(key, delivery);
    const reply = this.#options.replyFor?.(id, delivery) ?? { answer: 'accept', delayMs: 0 };
    const decide = () => {
      if (this.#undecided.delete(decide)) this.#decide(reply.answer, sequence, id, sessionId, callback);
    };
    this.#undecided.add(decide);
    const proceed = () => {
      if (reply.delayMs > 0) setTimeout(decide, reply.delayMs);
      else decide();
    };
    if (this.#isHolding && reply.evenHeld !== true) this.#heldReplies.push(proceed);
    else proceed();
  }

  #decide(
    answer: DeliveryReply['answer'],
    sequence: number,
    id: string | null,
    sessionId: string,
    callback: DataCallback,
  ) {
    const session = this.#sessions.get(sessionId);
    if (session?.socket?.readyState !== 'open') {
      this.#options.receipts.refused(sequence, id, false, SESSION_GONE);
      callback(new Error(SESSION_GONE));
      return;
    }
    if (answer !== 'accept') {
      const { code, text } = REPLIES[answer];
      this.#options.receipts.refused(sequence, id, answer === 'never', `${code} ${text}`);
      callback(Object.assign(new Error(text), { responseCode: code }));
      return;
    }
    this.#options.receipts.consumed(sequence, id, 'accepted');
    session.accepted.push(sequence);
    const maxInDelivery = this.#options.inDeliveryPerSession;
    if (maxInDelivery !== undefined && session.accepted.length > maxInDelivery) {
      this.#settle(session.accepted.splice(0, session.accepted.length - maxInDelivery), 'known');
    }
    callback();
  }

  #onLogEntry(entry: unknown): void {
    const { tnx, command, cid } = entry as { tnx?: string; command?: string; cid?: string };
    if (tnx !== 'command' || command !== 'QUIT' || cid === undefined) return;
    const session = this.#sessions.get(cid);
    if (session) session.hasQuit = true;
  }

  #endSession(sessionId: string): void {
    const session = this.#sessions.get(sessionId);
    if (!session) return;
    this.#sessions.delete(sessionId);
    // QUIT alone proves nothing: a target may send it together with the data, and be gone before it reads the
    // answers. Then the connection is reset.
    this.#settle(session.accepted.splice(0), session.hasQuit && !session.hasFailed ? 'known' : 'broken');
  }

  #settle(sequences: number[], how: 'known' | 'broken'): void {
    if (sequences.length > 0) this.#options.receipts.settled(sequences, how);
  }
}

const noop = () => {};
const SILENT_LOGGER = {
  level: noop,
  trace: noop,
  debug: noop,
  info: noop,
  warn: noop,
  error: noop,
  fatal: noop,
};
