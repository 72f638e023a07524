import { QueueError } from '../platform/errors.js';

/** Settings of the HTTP front. Times are in milliseconds, sizes in bytes. */
export interface FrontSettings {
  /** Address on which the server listens. Default: 127.0.0.1. */
  host: string;
  /** Port on which the server listens; 0: any free port. Default: 0. */
  port: number;
  /** Time after which a message that was not consumed is given back. Default: 5,000. */
  leaseMs: number;
  /** Longest time that a receiver waits for a message; a longer `wait` is shortened. Default: 30,000. */
  maxWaitMs: number;
  /** Largest message. Default: 16 MiB. */
  maxBodyBytes: number;
  /** Largest body of `POST /transactions`, in base64 and JSON. Default: 8 MiB; parsing it takes several times as much. */
  maxTransactionBytes: number;
  /** Memory for bodies that are not stored yet, over all connections. Default: 128 MiB. */
  maxBufferedBytes: number;
  /** Default: 1,000. */
  maxConnections: number;
  /** Number of requests of one connection that wait for their answer (pipelining). Default: 64. */
  maxRequestsInFlight: number;
  /** Default: 1,000. */
  maxWaitingReceivers: number;
  /** Number of messages that are in delivery at the same time. Default: 10,000. */
  maxLeases: number;
  /** Longest time in which the head of a request must have come. Default: 10,000. */
  headTimeoutMs: number;
  /** Longest time in which a whole request must have come. Default: 30,000. */
  requestTimeoutMs: number;
  /** Time after which a connection without a request is closed. Default: 120,000. */
  keepAliveMs: number;
}

/** The default settings of a front. */
export const DEFAULT_SETTINGS: FrontSettings = {
  host: '127.0.0.1',
  port: 0,
  leaseMs: 5_000,
  maxWaitMs: 30_000,
  maxBodyBytes: 16 * 2 ** 20,
  maxTransactionBytes: 8 * 2 ** 20,
  maxBufferedBytes: 128 * 2 ** 20,
  maxConnections: 1_000,
  maxRequestsInFlight: 64,
  maxWaitingReceivers: 1_000,
  maxLeases: 10_000,
  headTimeoutMs: 10_000,
  requestTimeoutMs: 30_000,
  keepAliveMs: 120_000,
};

/** Largest delay of a timer. Node ends a longer timer at once. */
const MAX_SETTING = 2 ** 31 - 1;

/**
 * Adds the defaults to settings.
 * @throws QueueError `bad-setting` when a number is not a whole one from 1 (`port`, `maxWaitMs`: 0) to 2^31 - 1.
 */
export function frontSettings(given: Partial<FrontSettings> = {}): FrontSettings {
  const settings = { ...DEFAULT_SETTINGS, ...given };
  for (const [name, value] of Object.entries(settings)) {
    if (name === 'host') continue;
    const least = name === 'port' || name === 'maxWaitMs' ? 0 : 1;
    const most = name === 'port' ? 65_535 : MAX_SETTING;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most)
      throw new QueueError(
        'bad-setting',
        `http: ${name} is ${value}, expected a whole number from ${least} to ${most}`,
      );
  }
  return settings;
}
