import { connect, type Socket } from 'node:net';
import { parseArgs } from 'node:util';

/**
 * Measures the HTTP server on `--port`: for `--seconds`, each of `--connections` connections puts messages of `--bytes` bytes, one
 * after the other; then, for the same time, each leases messages and deletes the leases. It prints one JSON object: `putsPerSecond`,
 * and `consumedPerSecond`.
 */
const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    connections: { type: 'string', default: '64' },
    seconds: { type: 'string', default: '4' },
    bytes: { type: 'string', default: '1024' },
  },
});
const body = Buffer.alloc(Number(values.bytes), 0x61);
const seconds = Number(values.seconds);
const END_OF_HEADERS = '\r\n\r\n';

/** An answer: its status and its headers. */
interface Answer {
  status: number;
  headers: string;
}

/** A connection with one request in flight. */
class Client {
  readonly #socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #answer: (answer: Answer) => void = () => undefined;

  constructor(port: number) {
    this.#socket = connect({ host: '127.0.0.1', port, noDelay: true });
    this.#socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    this.#socket.on('close', () => this.#answer({ status: 0, headers: '' }));
    this.#socket.on('error', () => undefined);
  }

  request(method: string, path: string, content: Buffer): Promise<Answer> {
    const head = `${method} ${path} HTTP/1.1\r\nhost: x\r\ncontent-length: ${content.length}${END_OF_HEADERS}`;
    this.#socket.write(Buffer.concat([Buffer.from(head), content]));
    return new Promise((resolve) => {
      this.#answer = resolve;
    });
  }

  #receive(chunk: Buffer): void {
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
    const end = this.#received.indexOf(END_OF_HEADERS);
    if (end === -1) return;
    const headers = this.#received.toString('latin1', 0, end).toLowerCase();
    const length = Number(/content-length: (\d+)/.exec(headers)?.[1] ?? 0);
    if (this.#received.length < end + END_OF_HEADERS.length + length) return;
    this.#received = Buffer.alloc(0);
    this.#answer({ status: Number(headers.slice(9, 12)), headers });
  }

  close(): void {
    this.#socket.destroy();
  }
}

const clients = Array.from({ length: Number(values.connections) }, () => new Client(Number(values.port)));

async function perSecond(
  work: (client: Client, at: number, number: number) => Promise<boolean>,
): Promise<number> {
  const startedMs = performance.now();
  const endMs = startedMs + seconds * 1000;
  let done = 0;
  const loop = async (client: Client, at: number) => {
    for (let number = 1; performance.now() < endMs; number += 1) {
      if (!(await work(client, at, number))) return;
      done += 1;
    }
  };
  await Promise.all(clients.map(loop));
  return done / ((performance.now() - startedMs) / 1000);
}

const putsPerSecond = await perSecond(async (client, at, number) => {
  const { status } = await client.request('PUT', `/messages/${at}-${number}`, body);
  if (status !== 201) throw new Error(`PUT: answered ${status}, expected 201`);
  return true;
});
const nothing = Buffer.alloc(0);
const consumedPerSecond = await perSecond(async (client) => {
  const leased = await client.request('POST', '/leases?wait=100', nothing);
  // Empty, or others have all messages that may be delivered now.
  if (leased.status === 204) return false;
  const lease = /^lease: (\S+)/m.exec(leased.headers)?.[1];
  const { status } = await client.request('DELETE', `/leases/${lease}`, nothing);
  if (status !== 204) throw new Error(`DELETE: answered ${status}, expected 204`);
  return true;
});
for (const client of clients) client.close();
process.stdout.write(`${JSON.stringify({ putsPerSecond, consumedPerSecond })}\n`, () => process.exit());
