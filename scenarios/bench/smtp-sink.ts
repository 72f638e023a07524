import { createServer, type Server, type Socket } from 'node:net';

/**
 * A cheap destination host, which supports as much SMTP as a gateway needs and counts the messages. It
 * checks nothing, because the gate does that, and because a benchmark must not measure its sink.
 */
export class CountingSink {
  delivered = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #waiter: { count: number; resolve: () => void } | undefined;

  constructor() {
    this.#server = createServer((socket) => this.#serve(socket));
  }

  /** Listens on a free port of the loopback interface, and returns the port. */
  listen(): Promise<number> {
    return new Promise((resolve) => {
      this.#server.listen(0, '127.0.0.1', () => resolve((this.#server.address() as { port: number }).port));
    });
  }

  /** Resolves when at least `count` messages have arrived since the start. */
  waitForCount(count: number): Promise<void> {
    if (this.delivered >= count) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiter = { count, resolve };
    });
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    let buffered = '';
    let inData = false;
    socket.on('data', (bytes) => {
      buffered += bytes.toString('latin1');
      let answer = '';
      for (;;) {
        const terminator = inData ? '\r\n.\r\n' : '\r\n';
        const end = buffered.indexOf(terminator);
        if (end < 0) break;
        const line = inData ? '.' : buffered.slice(0, end).toUpperCase();
        buffered = buffered.slice(end + terminator.length);
        if (inData) this.#count();
        inData = !inData && line === 'DATA';
        answer += reply(line);
      }
      if (answer !== '') socket.write(answer);
    });
    socket.write('220 sink ESMTP\r\n');
  }

  #count(): void {
    this.delivered += 1;
    if (this.#waiter && this.delivered >= this.#waiter.count) this.#waiter.resolve();
  }

  /** Stops listening and destroys all connections. */
  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

function reply(line: string): string {
  if (line === 'DATA') return '354 go on\r\n';
  if (line.startsWith('EHLO')) return '250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n';
  return line.startsWith('QUIT') ? '221 bye\r\n' : '250 ok\r\n';
}
