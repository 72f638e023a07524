import { once } from 'node:events';
import { createServer } from 'node:net';
import { between, seeded } from './random.js';

/**
 * Lowest port that is chosen. The range of the ports lies below the range from which the kernel takes the
 * ports of outgoing connections: a port must stay the target's while the target is down. In the kernel's
 * range, a producer that calls a closed port can even be connected to itself.
 */
const LOWEST_PORT = 15_000;
/** Highest port that is chosen; see LOWEST_PORT. */
const HIGHEST_PORT = 32_000;
const MAX_TRIES = 200;

/**
 * Finds a port on which no process listens. The choice does not depend on the run's seed: two runs with one
 * seed would otherwise choose the same ports.
 * @throws Error when MAX_TRIES ports were in use.
 */
export async function freePort(taken: ReadonlySet<number>): Promise<number> {
  const random = seeded(`${process.pid}/${process.hrtime.bigint()}`);
  for (let attempt = 0; attempt < MAX_TRIES; attempt++) {
    const port = between(random, LOWEST_PORT, HIGHEST_PORT);
    if (!taken.has(port) && (await canListen(port))) return port;
  }
  throw new Error(`no free port between ${LOWEST_PORT} and ${HIGHEST_PORT}`);
}

async function canListen(port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return true;
  } catch {
    return false;
  } finally {
    server.close();
  }
}
