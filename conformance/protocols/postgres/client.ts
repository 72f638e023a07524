import { Client } from 'pg';
import { messageOf } from '../../errors.js';
import type { Session } from '../client/session.js';
import { withTimeout } from '../client/timeout.js';
import type { Answer } from '../protocol.js';

/** The table that messages go into. */
export const TABLE = 'plugpull';

const CLOSE_TIMEOUT_MS = 1000;
const CREATE = `CREATE TABLE IF NOT EXISTS ${TABLE} (id bigserial PRIMARY KEY, body bytea NOT NULL)`;

/**
 * Errors after which the server does not say whether the transaction was committed: broken connections, a server that is
 * shut down or has crashed while the answer was on its way, completion unknown, internal errors.
 */
const INDEFINITE_SQLSTATE = /^(?:08|57P0|40003|XX|58)/;

/**
 * A connection as `PGUSER` (default `postgres`) to `PGDATABASE` (default `postgres`); `PGPASSWORD` is used where asked for.
 * @throws Error when the target does not take it within `timeoutMs`, which is also the limit for every answer.
 */
export async function openPostgres(port: number, timeoutMs: number): Promise<Client> {
  const client = new Client({
    host: '127.0.0.1',
    port,
    user: process.env.PGUSER ?? 'postgres',
    database: process.env.PGDATABASE ?? 'postgres',
    connectionTimeoutMillis: timeoutMs,
    query_timeout: timeoutMs,
  });
  // What breaks is told to whoever waits for an answer.
  client.on('error', () => {});
  await client.connect();
  return client;
}

/** Ends a connection; with a query under way it is broken. Never rejects. */
export async function closePostgres(client: Client): Promise<void> {
  await withTimeout(client.end(), CLOSE_TIMEOUT_MS).catch(() => {});
}

/** One try: it takes connections and has the table, which is made when it is not there. */
export async function postgresReady(port: number, timeoutMs: number): Promise<boolean> {
  let client: Client | undefined;
  try {
    client = await openPostgres(port, timeoutMs);
    await client.query(CREATE);
    return true;
  } catch {
    return false;
  } finally {
    if (client) await closePostgres(client);
  }
}

/** A connection that inserts messages, each in a transaction of its own. */
export async function postgresSession(port: number, timeoutMs: number): Promise<Session> {
  const client = await openPostgres(port, timeoutMs);
  let usable = true;
  // A connection does one thing at a time.
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

/** What an error says of the transaction in which it came: rolled back, or nothing. */
export function answerOf(error: unknown): Answer {
  const detail = messageOf(error);
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const sqlState = /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
  if (sqlState === undefined || INDEFINITE_SQLSTATE.test(sqlState)) return { outcome: 'indefinite', detail };
  return { outcome: 'rejected', detail: `${sqlState} ${detail}` };
}
