import { setTimeout as pause } from 'node:timers/promises';
import type { Client } from 'pg';
import type { Address } from '../address.js';
import { openersFor } from '../client/openers.js';
import { type Lease, type LeaseSource, PullReceiver } from '../client/pull-receiver.js';
import { connectProducer } from '../client/session.js';
import { answerTimeoutMs } from '../client/timeout.js';
import type { Protocol } from '../protocol.js';
import { closePostgres, openPrimary, postgresReady, postgresSession, TABLE } from './client.js';

const CONSUMERS = 2;

/**
 * A table as a queue: `INSERT` submits; `SELECT … FOR UPDATE SKIP LOCKED` receives; `DELETE` and `COMMIT`
 * consume.
 */
export const postgres: Protocol = {
  name: 'postgres',
  connect: (address, options) => connectProducer(postgresSession, address, options?.timeoutMs),
  ready: postgresReady,
  async receive(addresses, options) {
    const [count, select] = options.inOrder ? [1, SELECT_IN_ORDER] : [CONSUMERS, SELECT];
    return new PullReceiver(
      openersFor(addresses, count, (address) => () => postgresSource(address, select)),
      options,
    );
  },
};

/** Pause between queries of an empty table. */
const POLL_INTERVAL_MS = 20;

/** Waits for the first row, also if a connection that has just broken still locks it. */
const SELECT_IN_ORDER = `SELECT id, body FROM ${TABLE} ORDER BY id LIMIT 1 FOR UPDATE`;
const SELECT = `${SELECT_IN_ORDER} SKIP LOCKED`;
const DELETE = `DELETE FROM ${TABLE} WHERE id = $1`;

/**
 * Opens a source that takes rows one at a time. A transaction locks each row until it is deleted and committed.
 */
async function postgresSource(address: Address, select: string): Promise<LeaseSource> {
  const client = await openPrimary(address, answerTimeoutMs(address));
  return {
    async next() {
      await client.query('BEGIN');
      const { rows } = await client.query<{ id: string; body: Buffer }>(select);
      const [row] = rows;
      if (row !== undefined) return leaseOf(client, row.id, row.body);
      await client.query('ROLLBACK');
      await pause(POLL_INTERVAL_MS);
      return undefined;
    },
    close: () => void closePostgres(client),
  };
}

function leaseOf(client: Client, id: string, body: Buffer): Lease {
  return {
    body,
    async consume() {
      await client.query(DELETE, [id]);
      const { command } = await client.query('COMMIT');
      // In a transaction that has failed, COMMIT succeeds with the answer ROLLBACK.
      return command === 'COMMIT' ? undefined : command;
    },
    async giveBack() {
      await client.query('ROLLBACK');
      return 'the transaction was rolled back';
    },
  };
}
