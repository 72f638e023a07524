import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

const LOOPBACK = '127.0.0.1';

/**
 * Hands connections to an address of this machine on to a port of its loopback, byte by byte, their ends too. The kit's
 * receiver listens on loopback only; through this it is reached from one network of containers besides.
 */
export class SinkRelay {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(port: number) {
    this.#server = createServer((from) => this.#join(from, connect(port, LOOPBACK)));
    this.#server.on('error', () => {});
  }

  /** Listens on any port of `host`; hands on to `port` of loopback. Rejects when it cannot listen there. */
  static async open(host: string, port: number): Promise<SinkRelay> {
    const relay = new SinkRelay(port);
    relay.#server.listen(0, host);
    await once(relay.#server, 'listening');
    return relay;
  }

  /** host:port */
  get address(): string {
    // A listening TCP server's address is an AddressInfo.
    const { address, port } = this.#server.address() as AddressInfo;
    return `${address}:${port}`;
  }

  /** Breaks what is open; may be called twice. */
  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #join(from: Socket, to: Socket): void {
    from.pipe(to).pipe(from);
    for (const [one, other] of [
      [from, to],
      [to, from],
    ] as const) {
      this.#sockets.add(one);
      one.setNoDelay(true);
      // A connection that breaks breaks on both sides; one that ends has been ended by the pipe, after its last byte.
      one.on('error', () => other.destroy());
      one.on('close', () => this.#sockets.delete(one));
    }
  }
}
