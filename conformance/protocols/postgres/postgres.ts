import { PullReceiver } from '../client/pull.js';
import { connectProducer } from '../client/session.js';
import type { Protocol } from '../protocol.js';
import { postgresReady, postgresSession } from './client.js';
import { postgresSource } from './consumer.js';

const CONSUMERS = 2;

/** A table as a queue: `INSERT` in; `SELECT … FOR UPDATE SKIP LOCKED`, `DELETE` and `COMMIT` out. */
export const postgres: Protocol = {
  name: 'postgres',
  connect: (port, options) => connectProducer(postgresSession, port, options?.timeoutMs),
  ready: postgresReady,
  async receive(ports, options) {
    const opens = ports.flatMap((port) =>
      Array.from({ length: CONSUMERS }, () => () => postgresSource(port)),
    );
    return new PullReceiver(opens, options);
  },
};
