import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { between, seeded } from './random.js';

/** A range of ports, both ends included. */
export interface PortRange {
  lowest: number;
  highest: number;
}

/**
 * The ports that are chosen. They lie below the range from which the kernel takes the ports of outgoing connections: a
 * port must stay the target's while the target is down. In the kernel's range, a producer that calls a closed port can
 * even be connected to itself.
 */
const PORT_RANGE: PortRange = { lowest: 15_000, highest: 32_000 };
const MAX_TRIES = 200;

/** The sockets that hold the reservations of this process, by port. */
const reservations = new Map<number, Server>();

/**
 * Reserves a port on which no process listens, until `releasePort` or the end of this process. No other process of the
 * kit on this machine gets the port meanwhile, also while the target is down: a receiver would otherwise consume the
 * messages of another run's target. The choice does not depend on the run's seed: two runs with one seed would otherwise
 * try the same ports.
 * @throws Error when MAX_TRIES ports were in use.
 */
export async function reservePort({ lowest, highest } = PORT_RANGE): Promise<number> {
  const random = seeded(`${process.pid}/${process.hrtime.bigint()}`);
  for (let attempt = 0; attempt < MAX_TRIES; attempt++) {
    const port = between(random, lowest, highest);
    // The name of an abstract socket belongs to one process of a network namespace, as a port does. The kernel frees it
    // when the process dies.
    const reservation = await listen(`\0plugpull-port-${port}`);
    if (reservation === undefined) continue;
    const probe = await listen(port);
    if (probe === undefined) {
      reservation.close();
      continue;
    }
    await new Promise((closed) => probe.close(closed));
    reservation.unref();
    reservations.set(port, reservation);
    return port;
  }
  throw new Error(`no free port between ${lowest} and ${highest}`);
}

/** Ends the reservation of a port. A port that is not reserved is ignored. */
export function releasePort(port: number): void {
  reservations.get(port)?.close();
  reservations.delete(port);
}

/** Listens on a port of the loopback interface or on a socket; undefined when that is in use. */
async function listen(where: number | string): Promise<Server | undefined> {
  const server = createServer();
  try {
    if (typeof where === 'number') server.listen(where, '127.0.0.1');
    else server.listen(where);
    await once(server, 'listening');
    return server;
  } catch {
    server.close();
    return undefined;
  }
}
