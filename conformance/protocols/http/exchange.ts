import { type Agent, type IncomingHttpHeaders, request } from 'node:http';
import { limit } from '../../limits.js';
import type { Address } from '../address.js';
import type { HangUp } from '../protocol.js';

/** Parameters of one HTTP request. */
export interface Exchange {
  agent: Agent;
  address: Address;
  method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  path: string;
  body?: Buffer;
  timeoutMs: number;
  /** Point at which the connection is broken on purpose. The promise then rejects. */
  hangUp?: HangUp | undefined;
  signal?: AbortSignal;
  /** Upper bound of the body of the response. Default: the limit `answer-bytes`. */
  maxBodyBytes?: number;
}

/** A whole HTTP response. */
export interface Response {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

/**
 * Sends one request and resolves to its whole response. Never repeats the request.
 * @throws Error when the connection breaks, the response is too long, or `timeoutMs` passes before its end.
 */
export function exchange(what: Exchange): Promise<Response> {
  const { agent, address, method, path, body, timeoutMs, hangUp, signal } = what;
  const { maxBodyBytes = limit('answer-bytes') } = what;
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-length': body.length };
    const { host, port } = address;
    const options = { host, port, method, path, agent, headers, ...(signal ? { signal } : {}) };
    const call = request(options, (incoming) => {
      const chunks: Buffer[] = [];
      let sizeBytes = 0;
      incoming.on('data', (chunk: Buffer) => {
        sizeBytes += chunk.length;
        if (sizeBytes <= maxBodyBytes) chunks.push(chunk);
        else call.destroy(new Error(`the body of the response has more than ${maxBodyBytes} bytes`));
      });
      incoming.on('error', reject);
      incoming.on('end', () => {
        clearTimeout(timer);
        resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: Buffer.concat(chunks) });
      });
    });
    const timer = setTimeout(() => call.destroy(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    call.on('error', reject);
    call.on('close', () => {
      clearTimeout(timer);
      reject(new Error('the connection broke'));
    });
    if (hangUp === undefined || body === undefined) {
      call.end(body);
      return;
    }
    const hangUpNow = () => {
      reject(new Error(`the producer hung up on purpose, ${hangUp}`));
      // Destroy without an error: when the answer came before the end of the body, nothing listens to errors of the socket.
      call.destroy();
    };
    if (hangUp === 'before-data') {
      call.flushHeaders();
      call.once('socket', (socket) => (socket.connecting ? socket.once('connect', hangUpNow) : hangUpNow()));
    } else if (hangUp === 'in-data') call.write(body.subarray(0, Math.ceil(body.length / 2)), hangUpNow);
    else call.end(body, hangUpNow);
  });
}
