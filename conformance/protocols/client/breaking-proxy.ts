import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { type Address, localAddress } from '../address.js';
import type { HangUp } from '../protocol.js';
import { guardInput } from './input-guard.js';

/**
 * Time for the bytes that a client may still send after the last byte of a message, until the connection is
 * broken.
 */
const TRAILING_BYTES_MS = 20;
/** Time after which the connection is broken although the client has not sent the expected number of bytes. */
const MAX_WAIT_MS = 5000;

/** A break that waits for bytes of a message. */
interface PendingBreak {
  remainingBytes: number;
  /** True if the proxy forwards no byte after the next `remainingBytes` bytes. */
  stopsForwarding: boolean;
  onReached(): void;
}

/**
 * Forwards a connection to an address and breaks it at a given point. Any client library thus
 * hangs up in the middle of a message, and the kit needs no access to the library's internals.
 */
export class BreakingProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #target: Socket | undefined;
  #pendingBreak: PendingBreak | undefined;

  private constructor({ host, port }: Address) {
    this.#server = createServer((client) => {
      const target = connect(port, host);
      this.#target = target;
      guardInput(target);
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

  /** Starts a proxy to `target`. Clients connect to the proxy's own `address`. */
  static async start(target: Address): Promise<BreakingProxy> {
    const relay = new BreakingProxy(target);
    relay.#server.listen(0, '127.0.0.1');
    await once(relay.#server, 'listening');
    return relay;
  }

  get address(): Address {
    // A listening TCP server's address is an AddressInfo.
    return localAddress((this.#server.address() as AddressInfo).port);
  }

  /**
   * Breaks the connection while the client sends a message of `sizeBytes`, and resolves then. The break comes
   * before the first byte, after half of the bytes have gone to the target, or after all of them; then the
   * answer is dropped.
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
