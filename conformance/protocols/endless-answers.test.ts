import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import t from 'tap';
import { seeded } from '../fixtures/random.js';
import { localAddress } from './address.js';
import { compose } from './message.js';
import type { ProtocolName } from './protocol-names.js';
import { protocolOf } from './registry/registry.js';

const LIMIT_BYTES = 100_000;
/** Far more than the limit and what the kernel buffers. A client that reads so much has no limit. */
const TOO_MANY_BYTES = 128 << 20;
/** Longer than the whole test may take: no timeout of a client may end the answer. */
const TIMEOUT_MS = 3_600_000;
const FILLER = Buffer.alloc(65_536, 'x');

const MESSAGE = compose({ run: 'r', id: 'm', shape: 'tiny' }, seeded(1));

process.env.PLUGPULL_LIMITS = `answer-bytes=${LIMIT_BYTES},ready-answer-bytes=${LIMIT_BYTES}`;

/** Sends `head` and then `part` without end, to every connection. */
class EndlessServer {
  readonly #server: Server;
  /** True if a client has read TOO_MANY_BYTES. */
  hasReadAll = false;

  private constructor(head: Buffer, part: Buffer, afterRequest: boolean) {
    this.#server = createServer((socket) => {
      socket.on('error', () => {});
      const send = () => {
        socket.write(head);
        this.#flood(socket, part);
      };
      if (afterRequest) socket.once('data', send);
      else send();
      socket.resume();
    });
  }

  static async start(
    head: Buffer | string,
    part: Buffer | string,
    afterRequest = false,
  ): Promise<EndlessServer> {
    const server = new EndlessServer(Buffer.from(head), Buffer.from(part), afterRequest);
    server.#server.listen(0, '127.0.0.1');
    await once(server.#server, 'listening');
    return server;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    this.#server.close();
  }

  #flood(socket: Socket, part: Buffer): void {
    if (socket.bytesWritten > TOO_MANY_BYTES) {
      this.hasReadAll = true;
      socket.destroy();
    }
    if (socket.destroyed) return;
    if (socket.write(part)) setImmediate(() => this.#flood(socket, part));
    else socket.once('drain', () => this.#flood(socket, part));
  }
}

const CHUNK = Buffer.concat([Buffer.from('10000\r\n'), FILLER, Buffer.from('\r\n')]);
const OK_CHUNKED = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n';

/** What each server sends: the beginning of an answer, and its part that never ends. */
const ENDLESS: [
  ProtocolName,
  string,
  head: Buffer | string,
  part: Buffer | string,
  afterRequest?: boolean,
][] = [
  ['http', 'a body', OK_CHUNKED, CHUNK, true],
  ['http', 'headers', 'HTTP/1.1 200 OK\r\n', `x-a: ${'y'.repeat(1000)}\r\n`, true],
  ['http', 'trailers', `${OK_CHUNKED}0\r\n`, `x-a: ${'y'.repeat(1000)}\r\n`, true],
  ['http', 'a chunk extension', `${OK_CHUNKED}1;`, FILLER, true],
  ['smtp', 'lines of a greeting', '', '220-hello\r\n'.repeat(1000)],
  ['smtp', 'a line', '220 ', FILLER],
  ['mqtt', 'a packet', Buffer.from([0x30, 0xff, 0xff, 0xff, 0x7f]), FILLER],
  ['beanstalk', 'a job', 'RESERVED 1 99999999999\r\n', FILLER],
  ['redis-stream', 'a bulk string', '$9999999999\r\n', FILLER],
  ['redis-list', 'a simple string', '+', FILLER],
  ['postgres', 'a message', Buffer.from([0x52, 0x7f, 0xff, 0xff, 0xff]), FILLER],
  ['amqp', 'a frame', Buffer.from([1, 0, 0, 0x7f, 0xff, 0xff, 0xff]), FILLER],
  ['nats', 'a line', 'INFO {', FILLER],
];

for (const [name, what, head, part, afterRequest] of ENDLESS) {
  t.test(`${name}: ${what} without end is read up to the limit only`, async (t) => {
    const protocol = await protocolOf(name);
    const server = await EndlessServer.start(head, part, afterRequest);
    t.teardown(() => server.close());
    t.equal(await protocol.ready(localAddress(server.port), TIMEOUT_MS), false);
    const answer = protocol
      .connect(localAddress(server.port), { timeoutMs: TIMEOUT_MS })
      .then((producer) => producer.submit(MESSAGE))
      .catch((error: unknown) => error);
    // Some clients talk to the server before they count as connected, and others only when they submit.
    t.match(await answer, name === 'beanstalk' ? { outcome: 'indefinite' } : { code: 'target-unavailable' });
    t.notOk(server.hasReadAll, 'the client has closed the connection');
  });
}

t.test(
  'smtp: a target that drips the answers to an envelope does not get the timeout for each',
  async (t) => {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.write('220 hi\r\n');
      socket.on('data', (bytes) => {
        const text = bytes.toString();
        if (text.startsWith('EHLO')) socket.write('250-me\r\n250 PIPELINING\r\n');
        if (!text.startsWith('MAIL')) return;
        let answers = 0;
        const drip = setInterval(() => {
          socket.write(answers++ < 100 ? '250 ok\r\n' : '354 go on\r\n');
          if (socket.destroyed) clearInterval(drip);
        }, 100);
        socket.once('close', () => clearInterval(drip));
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.teardown(() => server.close());
    const message = compose({ run: 'r', id: 'm', shape: 'many-recipients' }, seeded(1));
    const smtp = await protocolOf('smtp');
    const producer = await smtp.connect(localAddress((server.address() as AddressInfo).port), {
      timeoutMs: 400,
    });
    t.match(await producer.submit(message), { outcome: 'indefinite', detail: /no answer within 400 ms/ });
    await producer.close();
  },
);

/** Begins to deliver a message to the receiver of `smtp`, and calls `send` when it waits for the data. */
async function deliverTo(sink: string, send: (socket: Socket) => void): Promise<void> {
  const socket = connect(Number(sink.split(':')[1]), '127.0.0.1');
  socket.on('error', () => {});
  const commands = ['EHLO me', 'MAIL FROM:<a@plugpull.test>', 'RCPT TO:<r0.m@plugpull.test>', 'DATA'];
  socket.on('data', () => {
    const next = commands.shift();
    if (next !== undefined) socket.write(`${next}\r\n`);
    else send(socket);
  });
  // Not `once`: it rejects when the receiver resets the connection.
  await new Promise((resolve) => socket.once('close', resolve));
}

const RECEIPTS = { delivered: () => 1, consumed: () => {}, refused: () => {}, settled: () => {} };

t.test('smtp: a message to the receiver is read up to the limit, and within its time', async (t) => {
  const smtp = await protocolOf('smtp');
  const receiver = await smtp.receive([], { run: 'r', receipts: RECEIPTS });
  t.teardown(() => receiver.close());
  let hasReadAll = false;
  const flood = (socket: Socket) => {
    hasReadAll ||= socket.bytesWritten > TOO_MANY_BYTES;
    if (hasReadAll) socket.destroy();
    else if (!socket.destroyed) socket.write(FILLER, () => setImmediate(() => flood(socket)));
  };
  await deliverTo(receiver.sink, flood);
  t.notOk(hasReadAll, 'the receiver has closed the connection');
  process.env.PLUGPULL_LIMITS = 'delivery-ms=50';
  // Without the limit nothing ends this delivery: the client is never silent for long.
  await deliverTo(receiver.sink, (socket) => {
    const drip = setInterval(() => socket.write('x'), 10);
    socket.once('close', () => clearInterval(drip));
  });
});
