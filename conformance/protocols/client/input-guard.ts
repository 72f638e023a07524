import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import { beyond, limit } from '../../limits.js';

/** Interval between two checks of a socket, in ms. A target on this machine sends some megabytes in this time. */
const LOOK_INTERVAL_MS = 20;

/**
 * Breaks a connection when the target sends more than one answer may have (`answer-bytes`) while the client sends
 * nothing. A client waits for the whole answer before it goes on, and it acknowledges a delivery that it has received:
 * a target that sends on without end would fill the memory of the kit until the timeout of the call.
 */
export function guardInput(socket: Socket): void {
  const maxBytes = limit('answer-bytes');
  let writtenBytes = socket.bytesWritten;
  let readBefore = socket.bytesRead;
  const look = setInterval(() => {
    if (socket.bytesWritten !== writtenBytes) {
      writtenBytes = socket.bytesWritten;
      readBefore = socket.bytesRead;
    } else if (socket.bytesRead - readBefore > maxBytes) {
      socket.destroy(new Error(`the target sent ${beyond('answer-bytes', 'bytes')} in one answer`));
    }
  }, LOOK_INTERVAL_MS);
  look.unref();
  socket.once('close', () => clearInterval(look));
}

const guarding = new AsyncLocalStorage<boolean>();

subscribe('net.client.socket', (message) => {
  if (guarding.getStore() === true) guardInput((message as { socket: Socket }).socket);
});

/**
 * Calls a client library that opens a connection, and guards the input of its sockets from their first byte on. The
 * libraries do not hand out a socket before the handshake.
 */
export function openGuarded<T>(open: () => Promise<T>): Promise<T> {
  return guarding.run(true, open);
}
