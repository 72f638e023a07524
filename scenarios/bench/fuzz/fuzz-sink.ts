import { createServer, type Server, type Socket } from 'node:net';

/** A message that arrived. */
export interface Arrival {
  sender: string;
  recipients: string[];
  data: Buffer;
}

/** One message of this number is deferred, and one breaks the connection before its reply. */
const FAULT_EVERY = 97;

/** The next hop of the fuzz. It keeps every byte, and now and then it defers a message or breaks off. */
export class FuzzSink {
  /** Number of messages that arrived as a whole and were not accepted. */
  faults = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #onArrival: (arrival: Arrival) => void;
  #count = 0;

  constructor(onArrival: (arrival: Arrival) => void) {
    this.#onArrival = onArrival;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  /** Listens on a free port of the loopback interface, and returns the port. */
  listen(): Promise<number> {
    return new Promise((resolve) => {
      this.#server.listen(0, '127.0.0.1', () => resolve((this.#server.address() as { port: number }).port));
    });
  }

  /** Stops listening and destroys all connections. */
  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    let input = Buffer.alloc(0);
    let sender = '';
    let recipients: string[] = [];
    let inData = false;
    const pathOf = (line: string) => /<(.*)>/.exec(line)?.[1] ?? '';
    const answer = (line: string): string => {
      const verb = line.slice(0, 4).toUpperCase();
      if (verb === 'EHLO')
        return '250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE\r\n';
      if (verb === 'MAIL') {
        sender = pathOf(line);
        recipients = [];
      }
      if (verb === 'RCPT') recipients.push(pathOf(line));
      inData = verb === 'DATA';
      return inData ? '354 go on\r\n' : '250 ok\r\n';
    };
    socket.on('data', (chunk: Buffer) => {
      input = Buffer.concat([input, chunk]);
      let replies = '';
      while (!socket.destroyed) {
        const isEmpty = inData && input.indexOf('.\r\n') === 0;
        const end = isEmpty ? -2 : input.indexOf(inData ? '\r\n.\r\n' : '\r\n');
        if (end === -1) break;
        const text = input.toString('latin1', 0, inData ? Math.max(0, end + 2) : end);
        input = input.subarray(end + (inData ? 5 : 2));
        if (!inData) {
          replies += answer(text);
          continue;
        }
        inData = false;
        const reply = this.#take({
          sender,
          recipients,
          data: Buffer.from(text.replace(/(^|\r\n)\./g, '$1'), 'latin1'),
        });
        if (reply === undefined) socket.destroy();
        else replies += reply;
      }
      if (replies !== '' && !socket.destroyed) socket.write(replies);
    });
    socket.write('220 sink ESMTP\r\n');
  }

  #take(arrival: Arrival): string | undefined {
    this.#count += 1;
    const turn = this.#count % FAULT_EVERY;
    if (turn < 2) {
      this.faults += 1;
      return turn === 0 ? '451 4.3.0 later\r\n' : undefined;
    }
    this.#onArrival(arrival);
    return '250 ok\r\n';
  }
}
