import { Socket } from 'node:net';
import { Client } from 'pg';
import { messageOf } from '../../errors.js';
import type { Address } from '../address.js';
import { guardInput } from '../client/input-guard.js';
import type { Session } from '../client/session.js';
import { withTimeout } from '../client/timeout.js';
import type { Answer } from '../protocol.js';

/** Name of the table that holds the messages. */
export const TABLE = 'plugpull';

const CLOSE_TIMEOUT_MS = 1000;
const CREATE = `CREATE TABLE IF NOT EXISTS ${TABLE} (id bigserial PRIMARY KEY, body bytea NOT NULL)`;

/**
 * SQLSTATEs that leave open whether the transaction was committed: broken connection (08), server shut down or
 * crashed before the answer (57P0), completion unknown (40003), internal error (XX), system error (58).
 */
const INDEFINITE_SQLSTATE = /^(?:08|57P0|40003|XX|58)/;

/** Sockets of the clients: pg does not end one whose server does not answer. */
const sockets = new WeakMap<Client, Socket>();

/**
 * Opens a connection as `PGUSER` (default `postgres`) to `PGDATABASE` (default `postgres`). It sends
 * `PGPASSWORD` if the server asks for a password.
 * @throws Error when the target does not accept the connection within `timeoutMs`, which is also the limit
 * for every answer.
 */
async function openPostgres({ host, port }: Address, timeoutMs: number): Promise<Client> {
  const socket = new Socket();
  guardInput(socket);
  const client = new Client({
    stream: () => socket,
    host,
    port,
    user: process.env.PGUSER ?? 'postgres',
    database: process.env.PGDATABASE ?? 'postgres',
    connectionTimeoutMillis: timeoutMs,
    query_timeout: timeoutMs,
  });
  // Ignore the event: the pending queries are rejected with the same error.
  client.on('error', () => {});
  sockets.set(client, socket);
  await client.connect();
  return client;
}

/**
 * Opens a connection as `openPostgres` does. If the address is that of a node, the node must be the primary: a standby accepts
 * connections, and no messages.
 * @throws Error when the node is a standby, or as `openPostgres` does.
 */
export async function openPrimary(address: Address, timeoutMs: number): Promise<Client> {
  const client = await openPostgres(address, timeoutMs);
  if (address.node === undefined) return client;
  try {
    const { rows } = await client.query<{ standby: boolean }>('SELECT pg_is_in_recovery() AS standby');
    if (rows[0]?.standby !== false) throw new Error('a standby takes no messages');
    return client;
  } catch (error) {
    await closePostgres(client);
    throw error;
  }
}

/** Closes a connection; a query under way is broken off. Gives up after CLOSE_TIMEOUT_MS. Never rejects. */
export async function closePostgres(client: Client): Promise<void> {
  await withTimeout(client.end(), CLOSE_TIMEOUT_MS).catch(() => {});
  sockets.get(client)?.destroy();
}

/**
 * Tries once whether the target accepts connections and has the table, and creates the table if needed. Never
 * rejects.
 */
export async function postgresReady(address: Address, timeoutMs: number): Promise<boolean> {
  let client: Client | undefined;
  try {
    client = await openPrimary(address, timeoutMs);
    await client.query(CREATE);
    return true;
  } catch {
    return false;
  } finally {
    if (client) await closePostgres(client);
  }
}

/** Opens a connection that inserts each message in a separate transaction. */
export async function postgresSession(address: Address, timeoutMs: number): Promise<Session> {
  const client = await openPrimary(address, timeoutMs);
  let usable = true;
  // A connection executes one query at a time.
  let previousInsert: Promise<unknown> = Promise.resolve();
  client.on('end', () => {
    usable = false;
  });
  return {
    async put({ bytes }) {
      const insert = previousInsert.then(() =>
        client.query(`INSERT INTO ${TABLE} (body) VALUES ($1)`, [bytes]),
      );
      previousInsert = insert.catch(() => {});
      try {
        const { rowCount } = await insert;
        const outcome = rowCount === 1 ? 'confirmed' : 'indefinite';
        return { outcome, detail: `INSERT ${rowCount}` };
      } catch (error) {
        const answer = answerOf(error);
        if (answer.outcome === 'indefinite') {
          usable = false;
          await closePostgres(client);
        }
        return answer;
      }
    },
    usable: () => usable,
    close: () => closePostgres(client),
  };
}

/**
 * Returns the outcome that an error proves: rejected if the transaction was rolled back, otherwise indefinite.
 */
export function answerOf(error: unknown): Answer {
  const detail = messageOf(error);
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const sqlState = /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
  if (sqlState === undefined || INDEFINITE_SQLSTATE.test(sqlState)) return { outcome: 'indefinite', detail };
  return { outcome: 'rejected', detail: `${sqlState} ${detail}` };
}
