import { createServer, type Server, type Socket } from 'node:net';
import { QueueError } from '../../platform/errors.js';
import { InboundSession, type SessionHost } from './session.js';

/** Options of the SMTP server. */
export interface InboundOptions extends SessionHost {
  host: string;
  /** Port on which the server listens; 0: any free port. */
  port: number;
  maxConnections: number;
}

/** Time that clients get to read the last replies at shutdown, in milliseconds. */
const LINGER_TIMEOUT_MS = 1000;
const STOP_CHECK_INTERVAL_MS = 50;

/** The SMTP server of a gateway worker. */
export class InboundServer {
  readonly #server: Server;
  readonly #options: InboundOptions;
  readonly #sessions = new Set<InboundSession>();
  #onEmpty: (() => void) | undefined;

  private constructor(options: InboundOptions) {
    this.#options = options;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
  }

  /** Starts to listen. @throws QueueError `bad-setting` when the address is not available */
  static async start(options: InboundOptions): Promise<InboundServer> {
    const inbound = new InboundServer(options);
    await new Promise<void>((resolve, reject) => {
      inbound.#server.once('error', (cause: NodeJS.ErrnoException) => {
        const address = `${options.host}:${options.port}`;
        reject(
          new QueueError(
            'bad-setting',
            `smtp: cannot listen on ${address} (${cause.code}), expected a free port`,
            {
              cause,
            },
          ),
        );
      });
      inbound.#server.listen({ host: options.host, port: options.port, backlog: 1024 }, resolve);
    });
    return inbound;
  }

  /** The port on which the server listens. */
  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** Refuses new connections, answers 421, and lets messages in flight finish within `graceMs`. */
  async stop(graceMs: number): Promise<void> {
    this.#server.close();
    const empty = new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
    });
    for (const session of this.#sessions) session.stop();
    this.#checkEmpty();
    const startedMs = performance.now();
    let finishedMs = startedMs;
    const timer = setInterval(() => {
      const nowMs = performance.now();
      if ([...this.#sessions].some((session) => !session.isFinished)) finishedMs = nowMs;
      if (nowMs - finishedMs > LINGER_TIMEOUT_MS || nowMs - startedMs > graceMs) this.#abortAll();
    }, STOP_CHECK_INTERVAL_MS);
    await empty;
    clearInterval(timer);
  }

  #accept(socket: Socket): void {
    if (this.#sessions.size >= this.#options.maxConnections) {
      socket.on('error', () => undefined);
      socket.end('421 4.3.2 Too many connections\r\n', () => socket.destroy());
      return;
    }
    const session = new InboundSession(socket, this.#options, () => {
      this.#sessions.delete(session);
      this.#checkEmpty();
    });
    this.#sessions.add(session);
  }

  #abortAll(): void {
    for (const session of this.#sessions) session.abort();
  }

  #checkEmpty(): void {
    if (this.#sessions.size === 0) this.#onEmpty?.();
  }
}
