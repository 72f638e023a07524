import { createServer, type Server, type Socket } from 'node:net';
import { QueueError } from '../../../common/platform/errors.js';
import { SegmentPool } from './body-buffer.js';
import { MemoryBudget } from './memory-budget.js';
import { InboundSession, READ_BUFFER_BYTES, type SessionHost, type SharedResources } from './session.js';
import { Turns } from './turns.js';

/** Options of the SMTP server. */
export interface InboundOptions extends SessionHost {
  host: string;
  /** Port on which the server listens; 0: any free port. */
  port: number;
  maxConnections: number;
  maxConnectionsPerClient: number;
  maxBufferedBytes: number;
  /** Number of sessions with pipelined commands whose clients may leave their replies unread; default 64. */
  maxUnreadSessions?: number;
}

/** Time that clients get to read the last replies at shutdown, in milliseconds. */
const LINGER_TIMEOUT_MS = 1000;
const STOP_CHECK_INTERVAL_MS = 50;
/** Longest interval between two checks of the deadlines of all sessions, in milliseconds. */
const MAX_SWEEP_INTERVAL_MS = 250;
const MIN_SWEEP_INTERVAL_MS = 10;
/**
 * Time without a step towards a message, in milliseconds, after which a session may lose its place to a new one when
 * there are `maxConnections`.
 */
const MIN_IDLE_MS = 1000;

const MAX_UNREAD_SESSIONS = 64;

/** The SMTP server of a gateway worker. */
export class InboundServer {
  readonly #server: Server;
  readonly #options: InboundOptions;
  readonly #sessions = new Set<InboundSession>();
  /** Number of open connections by client address. */
  readonly #clients = new Map<string, number>();
  readonly #shared: SharedResources;
  readonly #sweepIntervalMs: number;
  #sweepTimer: NodeJS.Timeout | undefined;
  /** Time that the worker has served its clients; see `SharedResources.clockMs`. */
  #clockMs = 0;
  #sweptMs = performance.now();
  #onEmpty: (() => void) | undefined;

  private constructor(options: InboundOptions) {
    this.#options = options;
    this.#server = createServer({ allowHalfOpen: true, highWaterMark: READ_BUFFER_BYTES }, (socket) =>
      this.#accept(socket),
    );
    this.#shared = {
      budget: new MemoryBudget(options.maxBufferedBytes),
      pool: new SegmentPool(),
      turns: new Turns(),
      waiting: new Set(),
      maxUnreadSessions: options.maxUnreadSessions ?? MAX_UNREAD_SESSIONS,
      clockMs: () => this.#clockMs,
    };
    const { idleTimeoutMs, commandTimeoutMs, dataTimeoutMs, sessionTimeoutMs } = options;
    const shortestMs = Math.min(idleTimeoutMs, commandTimeoutMs, dataTimeoutMs, sessionTimeoutMs);
    this.#sweepIntervalMs = Math.max(MIN_SWEEP_INTERVAL_MS, Math.min(MAX_SWEEP_INTERVAL_MS, shortestMs / 4));
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
    inbound.#sweptMs = performance.now();
    inbound.#sweepTimer = setInterval(() => inbound.#sweep(), inbound.#sweepIntervalMs);
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
    clearInterval(this.#sweepTimer);
  }

  #accept(socket: Socket): void {
    const { remoteAddress: client } = socket;
    if (client === undefined) {
      // The client has already reset the connection.
      socket.destroy();
      return;
    }
    const connections = this.#clients.get(client) ?? 0;
    if (connections >= this.#options.maxConnectionsPerClient) {
      refuse(socket, '421 4.7.0 Too many connections from your address');
      return;
    }
    if (this.#sessions.size >= this.#options.maxConnections && !this.#makePlace()) {
      refuse(socket, '421 4.3.2 Too many connections');
      return;
    }
    this.#clients.set(client, connections + 1);
    const session = new InboundSession(socket, this.#options, this.#shared, () => {
      this.#sessions.delete(session);
      this.#leave(client);
      this.#checkEmpty();
    });
    this.#sessions.add(session);
  }

  #leave(client: string): void {
    const connections = this.#clients.get(client) ?? 0;
    if (connections > 1) this.#clients.set(client, connections - 1);
    else this.#clients.delete(client);
  }

  /** Ends the session that is idle for the longest time. Returns false if none is idle long enough. */
  #makePlace(): boolean {
    let idlest: InboundSession | undefined;
    let progressMs = this.#clockMs - MIN_IDLE_MS;
    for (const session of this.#sessions) {
      const sessionMs = session.progressMs;
      if (sessionMs === undefined || sessionMs > progressMs) continue;
      progressMs = sessionMs;
      idlest = session;
    }
    if (idlest === undefined) return false;
    idlest.giveUp('421 4.3.2 Too many connections');
    // The connection may take a while to close. Its place is free now.
    this.#sessions.delete(idlest);
    return true;
  }

  #sweep(): void {
    const nowMs = performance.now();
    // After a pause of the process the input of the clients has not been read yet. The pause must not count against their deadlines.
    this.#clockMs += Math.min(nowMs - this.#sweptMs, 2 * this.#sweepIntervalMs);
    this.#sweptMs = nowMs;
    for (const session of this.#sessions) session.checkDeadlines();
  }

  #abortAll(): void {
    for (const session of this.#sessions) session.abort();
  }

  #checkEmpty(): void {
    if (this.#sessions.size === 0) this.#onEmpty?.();
  }
}

function refuse(socket: Socket, reply: string): void {
  socket.on('error', () => undefined);
  socket.end(`${reply}\r\n`, () => socket.destroy());
}
