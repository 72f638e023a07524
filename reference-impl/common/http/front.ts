import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { QueueError } from '../platform/errors.js';
import { Administration } from './administration.js';
import { dropBody } from './body.js';
import { BodyBudget } from './budget.js';
import { Deliveries } from './deliveries.js';
import { Connection, Exchange, rawAnswer } from './exchange.js';
import { Leases } from './leases.js';
import { Messages } from './messages.js';
import { type Resolved, Router } from './routes.js';
import { type FrontSettings, frontSettings } from './settings.js';
import type { MessageStore } from './store.js';

/** Largest head of a request. A longer one gets 431. */
const MAX_HEAD_BYTES = 8 * 1024;
/** Interval between two checks of the deadlines of requests, in milliseconds. */
const CHECK_INTERVAL_MS = 500;
/** Time without a request after which a connection may lose its place to a new one, in milliseconds. */
const MIN_IDLE_MS = 1_000;
/** Time beyond the longest wait after which a connection without a byte is closed, in milliseconds. */
const SILENCE_MS = 30_000;

/** A front that serves. */
export interface HttpFront {
  /** Port on which it listens. */
  readonly port: number;
  /**
   * Stops accepting, answers what is in progress for at most `graceMs`, closes all connections, and gives the messages
   * in delivery back to the store. Waiting receivers get 204, new requests 503.
   */
  stop(graceMs: number): Promise<void>;
}

/**
 * Serves a store by HTTP; the requests are in the README of the folder above.
 * @throws QueueError `bad-setting` when a setting is wrong, or the address is not available
 */
export async function startHttpFront(
  store: MessageStore,
  settings: Partial<FrontSettings> = {},
): Promise<HttpFront> {
  const front = new Front(store, frontSettings(settings));
  await front.listen();
  return front;
}

class Front implements HttpFront {
  readonly #settings: FrontSettings;
  readonly #server: Server;
  readonly #connections = new Map<Socket, Connection>();
  readonly #leases: Leases;
  readonly #deliveries: Deliveries;
  readonly #budget: BodyBudget;
  readonly #router: Router;
  #port = 0;
  #stopped: Promise<void> | undefined;

  constructor(store: MessageStore, settings: FrontSettings) {
    this.#settings = settings;
    this.#budget = new BodyBudget(settings.maxBufferedBytes);
    this.#leases = new Leases(store, settings, () => this.#deliveries.leaseEnded());
    this.#deliveries = new Deliveries(store, this.#leases, settings);
    this.#router = new Router({
      messages: new Messages(store, this.#leases, this.#budget, settings),
      deliveries: this.#deliveries,
      administration: new Administration(store, this.#budget),
      status: () => ({ front: this.#status(), store: store.status() }),
    });
    this.#server = this.#makeServer();
  }

  get port(): number {
    return this.#port;
  }

  async listen(): Promise<void> {
    const { host, port } = this.#settings;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (cause: NodeJS.ErrnoException) => {
        const text = `http: cannot listen on ${host}:${port} (${cause.code}), expected a free port`;
        reject(new QueueError('bad-setting', text, { cause }));
      });
      this.#server.listen({ host, port, backlog: 1024 }, resolve);
    });
    // For example, no file descriptor is left for a new connection. Its client sees a closed connection. The others are served.
    this.#server.on('error', () => undefined);
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  stop(graceMs: number): Promise<void> {
    this.#stopped ??= this.#stop(graceMs);
    return this.#stopped;
  }

  async #stop(graceMs: number): Promise<void> {
    // Node would close connections whose last answer is not written completely. The loop below closes only idle ones.
    this.#server.closeIdleConnections = () => undefined;
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const connection of this.#connections.values()) {
      connection.isStopping = true;
      for (const exchange of connection.open) exchange.closeAfterwards();
      if (connection.open.size === 0) connection.socket.destroySoon();
    }
    this.#deliveries.stop();
    const timer = setTimeout(() => {
      this.#server.closeAllConnections();
      // Node has forgotten connections on which a CONNECT came.
      for (const { socket } of this.#connections.values()) socket.destroy();
    }, graceMs);
    await closed;
    clearTimeout(timer);
    this.#leases.stop();
  }

  #makeServer(): Server {
    const { headTimeoutMs, requestTimeoutMs, keepAliveMs, maxWaitMs } = this.#settings;
    const server = createServer({
      maxHeaderSize: MAX_HEAD_BYTES,
      headersTimeout: Math.min(headTimeoutMs, requestTimeoutMs),
      requestTimeout: requestTimeoutMs,
      keepAliveTimeout: keepAliveMs,
      connectionsCheckingInterval: CHECK_INTERVAL_MS,
      // The default answer of Node has no text.
      requireHostHeader: false,
    });
    // A client that reads no answer, or a connection whose other end has vanished.
    server.timeout = Math.max(maxWaitMs, requestTimeoutMs, keepAliveMs) + SILENCE_MS;
    server.on('connection', (socket: Socket) => this.#accept(socket));
    server.on('request', (request, response) => this.#serve(request, response, false));
    server.on('checkContinue', (request, response) => this.#serve(request, response, true));
    server.on('checkExpectation', (request, response) => this.#serve(request, response, true));
    server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) =>
      this.#onNonsense(error, socket),
    );
    // Node would close the connection without an answer.
    server.on('connect', (_request, socket) => this.#onNonsense(undefined, socket as Socket));
    return server;
  }

  #serve(request: IncomingMessage, response: ServerResponse, expectsContinue: boolean): void {
    const { maxBodyBytes, maxRequestsInFlight } = this.#settings;
    const connection = this.#connections.get(request.socket);
    // It came over a connection that was refused, and has its answer.
    if (connection === undefined) return;
    if (connection.open.size >= maxRequestsInFlight) {
      request.socket.destroy();
      return;
    }
    const exchange = new Exchange(request, response, connection, expectsContinue);
    if (connection.isStopping) {
      exchange.closeAfterwards();
      exchange.refuse({ status: 503, line: 'the queue shuts down' }, maxBodyBytes);
      return;
    }
    const resolved = this.#router.resolve(request);
    if ('status' in resolved) exchange.refuse(resolved, maxBodyBytes);
    else if (resolved.handler.takesBody) this.#handle(exchange, resolved);
    else dropBody(exchange, maxBodyBytes, () => this.#handle(exchange, resolved));
  }

  async #handle(exchange: Exchange, { handler, name, query }: Resolved): Promise<void> {
    try {
      await handler.handle(exchange, name, query);
    } catch (error) {
      exchange.fail(500, `the request failed: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  #status(): Record<string, number> {
    return {
      connections: this.#connections.size,
      leases: this.#leases.count,
      waitingReceivers: this.#deliveries.waitingCount,
      bufferedBytes: this.#budget.usedBytes,
    };
  }

  #accept(socket: Socket): void {
    if (this.#connections.size >= this.#settings.maxConnections && !this.#makePlace()) {
      socket.end(rawAnswer('503 Service Unavailable', 'too many connections, try again later'), () =>
        socket.destroy(),
      );
      return;
    }
    const connection = new Connection(socket);
    this.#connections.set(socket, connection);
    socket.once('close', () => {
      this.#connections.delete(socket);
      for (const exchange of [...connection.open]) exchange.lose();
    });
  }

  /** Ends the connection that is idle for the longest time. Returns false if none is idle long enough. */
  #makePlace(): boolean {
    let idlest: Connection | undefined;
    let sinceMs = performance.now() - MIN_IDLE_MS;
    for (const connection of this.#connections.values()) {
      if (connection.open.size > 0 || connection.idleSinceMs > sinceMs) continue;
      sinceMs = connection.idleSinceMs;
      idlest = connection;
    }
    if (idlest === undefined) return false;
    // The place is free now, although the connection may take a while to close.
    this.#connections.delete(idlest.socket);
    idlest.socket.destroy();
    return true;
  }

  /**
   * Handles bytes that are no request, or that came too slowly. If an earlier request still waits for its answer, the client
   * would take an error for that answer, although its message may be stored. So the error is written only if no request waits.
   */
  #onNonsense(error: NodeJS.ErrnoException | undefined, socket: Socket): void {
    const connection = this.#connections.get(socket);
    if (connection === undefined || error?.code === 'ECONNRESET' || !socket.writable) {
      socket.destroy();
      return;
    }
    if (connection.isBroken) return;
    connection.isBroken = true;
    const [status, line] = problemOf(error);
    const { reading } = connection;
    if (reading !== undefined) {
      reading.closeAfterwards();
      if (reading.isOpen) reading.fail(Number.parseInt(status, 10), line);
      else socket.destroy();
    } else if (connection.open.size === 0) socket.end(rawAnswer(status, line), () => socket.destroy());
  }
}

function problemOf(error: NodeJS.ErrnoException | undefined): [status: string, line: string] {
  switch (error?.code) {
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return ['408 Request Timeout', 'the request came too slowly'];
    case 'HPE_HEADER_OVERFLOW':
      return [
        '431 Request Header Fields Too Large',
        `the head of the request has more than ${MAX_HEAD_BYTES} bytes`,
      ];
    case undefined:
      return ['405 Method Not Allowed', 'the method is CONNECT, expected another one'];
    default:
      return ['400 Bad Request', `this is no HTTP request (${error?.code}), expected HTTP/1.1`];
  }
}
