import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { waitIfBulk } from './turns.js';

/** Longest text of an error answer, in characters. */
const MAX_DETAIL = 300;
/**
 * A client that sends a refused body may see a reset instead of the answer if the server closes at once. So the server
 * reads on: at most this number of bytes, for at most this time.
 */
const LINGER_BYTES = 16 * 2 ** 20;
const LINGER_MS = 2_000;

/** A connection and its requests that are not answered yet, in the order of arrival. */
export class Connection {
  readonly socket: Socket;
  readonly open = new Set<Exchange>();
  /** Whether invalid bytes came behind the open requests. The connection closes after their answers. */
  isBroken = false;
  /** Whether the server stops. The connection closes as soon as no request is open. */
  isStopping = false;
  /** Monotonic time since which no request is open, in milliseconds. */
  idleSinceMs = performance.now();

  constructor(socket: Socket) {
    this.socket = socket;
  }

  /** The request whose body is still coming. */
  get reading(): Exchange | undefined {
    let last: Exchange | undefined;
    for (const exchange of this.open) last = exchange;
    return last?.hasBody && !last.request.complete ? last : undefined;
  }
}

/** An answer that says what is wrong with a request, in one line of text. */
export interface Refusal {
  status: number;
  line: string;
  headers?: OutgoingHttpHeaders;
}

/** One request and its answer. */
export class Exchange {
  readonly request: IncomingMessage;
  readonly connection: Connection;
  readonly #response: ServerResponse;
  /** Whether the client sends a body. */
  readonly hasBody: boolean;
  /** Size of the body in bytes; undefined: its end is marked (`transfer-encoding: chunked`). */
  readonly declaredBytes: number | undefined;
  /** Whether the client waits for `100 Continue` before it sends the body. */
  #expectsContinue: boolean;
  /** `refused`: the answer waits for the end of a body that is dropped. */
  #state: 'open' | 'refused' | 'answered' = 'open';
  /** Called when the connection closed before the whole answer was written. */
  onLost: (() => void) | undefined;
  /** Called when the answer was written, or the connection closed. */
  onClosed: (() => void) | undefined;

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    connection: Connection,
    expectsContinue: boolean,
  ) {
    this.request = request;
    this.#response = response;
    this.connection = connection;
    this.#expectsContinue = expectsContinue;
    const { headers } = request;
    const length = headers['content-length'];
    this.declaredBytes = length === undefined ? undefined : Number(length);
    this.hasBody = headers['transfer-encoding'] !== undefined || (this.declaredBytes ?? 0) > 0;
    connection.open.add(this);
    response.on('finish', () => this.#finish());
  }

  /** Whether the request still has to be processed. */
  get isOpen(): boolean {
    return this.#state === 'open';
  }

  /** Answers. Does nothing when the request was answered before. */
  answer(status: number, headers: OutgoingHttpHeaders = {}, body?: Buffer | string): void {
    if (this.#state === 'answered') return;
    this.#state = 'answered';
    const length = body === undefined ? 0 : Buffer.byteLength(body);
    this.#response.writeHead(status, status === 204 ? headers : { ...headers, 'content-length': length });
    this.#response.end(body);
  }

  /** Answers with one JSON value. */
  answerJson(status: number, value: unknown): void {
    this.answer(status, { 'content-type': 'application/json' }, `${JSON.stringify(value)}\n`);
  }

  /** Answers with one line of text: what happened, and what was expected. */
  fail(status: number, line: string, headers?: OutgoingHttpHeaders): void {
    this.answer(status, { ...headers, ...TEXT }, oneLine(line));
  }

  /** The connection closes after this answer. */
  closeAfterwards(): void {
    if (!this.#response.headersSent) this.#response.setHeader('connection', 'close');
  }

  /** Tells the client to send the body. */
  proceed(): void {
    if (this.#expectsContinue) this.#response.writeContinue();
    this.#expectsContinue = false;
  }

  /**
   * Refuses a request whose body is not wanted.
   * @param maxBytes a body up to this size is read and dropped, and the connection goes on; after a larger one it closes
   */
  refuse({ status, line, headers }: Refusal, maxBytes: number): void {
    const { request } = this;
    const fail = () => this.fail(status, line, headers);
    if (this.#state !== 'open') return;
    this.#state = 'refused';
    if (!this.hasBody || request.readableEnded) fail();
    else if (this.#expectsContinue) {
      this.closeAfterwards();
      fail();
    } else if (this.declaredBytes !== undefined && this.declaredBytes <= maxBytes) {
      request.removeAllListeners('data');
      request.on('data', (chunk: Buffer) => waitIfBulk(request, chunk));
      request.once('end', fail);
    } else this.#refuseAndLinger(status, line);
  }

  /** The connection was closed. */
  lose(): void {
    if (!this.connection.open.delete(this)) return;
    this.#state = 'answered';
    this.onLost?.();
    this.onClosed?.();
  }

  /** Sends the whole answer now, and closes when the client has sent its body, or too much of it. */
  #refuseAndLinger(status: number, line: string): void {
    const { request, connection } = this;
    const response = this.#response;
    this.#state = 'answered';
    const text = oneLine(line);
    response.setHeader('connection', 'close');
    response.writeHead(status, { ...TEXT, 'content-length': Buffer.byteLength(text) });
    response.write(text);
    let droppedBytes = 0;
    const timer = setTimeout(() => connection.socket.destroy(), LINGER_MS);
    request.removeAllListeners('data');
    request.on('data', (chunk: Buffer) => {
      waitIfBulk(request, chunk);
      droppedBytes += chunk.length;
      if (droppedBytes > LINGER_BYTES) connection.socket.destroy();
    });
    request.once('end', () => response.end());
    this.onClosed = () => clearTimeout(timer);
    request.resume();
  }

  #finish(): void {
    const { socket } = this.connection;
    // Node also says `finish` when the socket was destroyed under an answer that was not written.
    if (socket.errored !== null || (socket.destroyed && !socket.writableFinished)) this.lose();
    else if (this.connection.open.delete(this)) {
      this.connection.idleSinceMs = performance.now();
      this.onClosed?.();
    }
    const { open, isBroken, isStopping } = this.connection;
    if ((isBroken || isStopping) && open.size === 0) socket.destroySoon();
  }
}

const TEXT = { 'content-type': 'text/plain; charset=utf-8' };

/** Returns one line of text for an answer. */
export function oneLine(text: string): string {
  return `${text.slice(0, MAX_DETAIL).replace(/\p{Cc}+/gu, ' ')}\n`;
}

/** Returns a whole answer for a connection on which there is no request that could be answered. */
export function rawAnswer(status: string, line: string): string {
  const text = oneLine(line);
  return `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: ${TEXT['content-type']}\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`;
}
