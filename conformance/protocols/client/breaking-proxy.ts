import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { HangUp } from '../protocol.js';

/** After the last byte of a message the client may have a few more to send, and the target begins to answer. */
const TRAILING_BYTES_MS = 20;
/** A client that never sends as much as was expected of it. */
const MAX_WAIT_MS = 5000;

/** What is still to come of the message that is to be broken. */
interface PendingBreak {
  remainingBytes: number;
  /** Nothing is forwarded after these bytes. */
  stopsForwarding: boolean;
  onReached(): void;
}

/**
 * Forwards a connection to a port of this machine and breaks it where it is told to, so that any client can be made to
 * hang up in the middle of a message without a hand in its insides.
 */
export class BreakingProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #target: Socket | undefined;
  #pendingBreak: PendingBreak | undefined;

  private constructor(port: number) {
    this.#server = createServer((client) => {
      const target = connect(port, '127.0.0.1');
      this.#target = target;
      for (const socket of [client, target]) {
        this.#sockets.add(socket);
        socket.setNoDelay(true);
        socket.on('error', () => {});
        socket.on('close', () => this.#destroySockets());
      }
      client.on('data', (chunk) => this.#forward(chunk));
      target.on('data', (chunk) => {
        if (this.#pendingBreak === undefined) client.write(chunk);
      });
    });
  }

  /** A relay to `port`; connect to its own `port`. */
  static async start(port: number): Promise<BreakingProxy> {
    const relay = new BreakingProxy(port);
    relay.#server.listen(0, '127.0.0.1');
    await once(relay.#server, 'listening');
    return relay;
  }

  get port(): number {
    // A listening TCP server's address is an AddressInfo.
    return (this.#server.address() as AddressInfo).port;
  }

  /**
   * From now on the client sends a message of `sizeBytes`. Resolves when the connection has been broken: before any of it,
   * when half as many bytes have gone to the target, or when all have, with the answer dropped.
   */
  async breakAt(hangUp: HangUp, sizeBytes: number): Promise<void> {
    await new Promise<void>((reached) => {
      const timer = setTimeout(reached, MAX_WAIT_MS);
      const onReached = () => {
        clearTimeout(timer);
        if (hangUp === 'before-answer') setTimeout(reached, TRAILING_BYTES_MS);
        else reached();
      };
      const remainingBytes = hangUp === 'in-data' ? Math.ceil(sizeBytes / 2) : sizeBytes;
      this.#pendingBreak = { remainingBytes, stopsForwarding: hangUp !== 'before-answer', onReached };
      if (hangUp === 'before-data') onReached();
    });
    this.close();
  }

  close(): void {
    this.#destroySockets();
    this.#server.close();
  }

  #forward(chunk: Buffer): void {
    const pending = this.#pendingBreak;
    if (pending === undefined) {
      this.#target?.write(chunk);
      return;
    }
    const part = pending.stopsForwarding ? chunk.subarray(0, pending.remainingBytes) : chunk;
    if (part.length === 0) return;
    pending.remainingBytes = Math.max(0, pending.remainingBytes - part.length);
    const last = pending.remainingBytes === 0;
    this.#target?.write(part, () => {
      if (last) pending.onReached();
    });
  }

  #destroySockets(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }
}
