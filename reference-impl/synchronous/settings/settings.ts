import { isAbsolute, resolve } from 'node:path';
import { z } from 'zod';
import { count, durationMs, size } from './units.js';

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const PAGE_BYTES = 4096;
/** Bytes reserved in a record for the envelope of the default maximum of recipients and for the record header. */
const ENVELOPE_BYTES = 512 * 1024;
const MAX_DURATION_MS = 24 * 3_600_000;
const MAX_AGE_MS = 30 * MAX_DURATION_MS;

const path = () => z.string({ error: 'a path' }).min(1, { error: 'a path' });
const host = () =>
  z.string({ error: 'a host name or address' }).regex(/^[A-Za-z0-9_.:-]{1,255}$/, {
    error: 'a host name or address',
  });
/** Matches a `host:port` pair, in which an IPv6 address is in brackets. */
const HOST_PORT = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):\d{1,5}$/;
const hostPort = () =>
  z.string({ error: 'host:port' }).refine(isHostPort, { error: 'host:port, the port from 1 to 65535' });

function isHostPort(text: string): boolean {
  const port = Number(text.slice(text.lastIndexOf(':') + 1));
  return HOST_PORT.test(text) && port >= 1 && port <= 65_535;
}

const object = <Shape extends z.ZodRawShape>(shape: Shape) =>
  z.strictObject(shape, {
    error: (issue) =>
      issue.code === 'unrecognized_keys' ? `one of ${Object.keys(shape).join(', ')}` : 'an object',
  });

const dataBytes = () => size({ min: 64 * KIB, max: 2 ** 46 }, PAGE_BYTES);
const entries = () => count({ min: 1, max: 2 ** 24 });

const Sync = object({
  maxBatchBytes: size({ min: 1, max: 2 ** 40 })
    .prefault(8 * MIB)
    .describe(
      'Total size of the requests at which a batch is written ([0045]; claims 6, 8, 22, 24, 38, 50).',
    ),
  maxBatchRequests: count({ min: 1, max: 65_536 })
    .prefault(4096)
    .describe('Number of requests at which a batch is written ([0045]; claims 9, 25, 39, 51).'),
  maxGatherMs: durationMs({ min: 0, max: 60_000 })
    .prefault(0)
    .describe(
      'Longest time from the first request of a batch to its write; 0: the requests of one read are written ' +
        'at once ([0042, 0045]; claims 10, 26, 36, 40, 48, 52).',
    ),
  maxIdleMs: durationMs({ min: 0, max: 60_000 })
    .prefault(0)
    .describe(
      'Time without a new request after which a batch is written ([0045]; claims 11, 27, 41, 53); it has an ' +
        'effect only if it is shorter than maxGatherMs; 0: no such rule.',
    ),
  maxSinceWriteMs: durationMs({ min: 0, max: 60_000 })
    .nullable()
    .prefault(null)
    .describe(
      'Time since the previous write after which a batch is written (claims 5, 21); null: no such rule.',
    ),
  contiguousRequests: count({ min: 2, max: 65_536 })
    .nullable()
    .prefault(null)
    .describe(
      'Number of requests without a gap between them at which a batch is written ([0042]; claims 7, 23, 37, ' +
        '49); null: no such rule.',
    ),
  maxGapPages: count({ min: 0, max: 2 ** 34 })
    .nullable()
    .prefault(null)
    .describe(
      'Largest gap between a request and the batch, in pages of 4096 bytes; a request beyond it is not ' +
        'substantially contiguous and waits for the next batch ([0045]; claims 12, 28, 42, 54); null: no limit.',
    ),
  maxGapBytes: size({ min: 0, max: 2 ** 46 })
    .nullable()
    .prefault(null)
    .describe(
      'The same limit as maxGapPages, in bytes; the smaller one applies ([0045]; claims 13, 29, 43, 55); ' +
        'null: no limit.',
    ),
  writeOnMisfit: z
    .boolean({ error: 'true or false' })
    .prefault(true)
    .describe(
      'Whether a request that is not substantially contiguous causes the batch to be written (claims 12, 13, ' +
        '28, 29, 42, 43, 54, 55); false: the request waits in the temporary storage while the batch keeps ' +
        'gathering ([0051]; claims 16, 33).',
    ),
  confirmationTimeoutMs: durationMs({ min: 1, max: 60_000 })
    .prefault(200)
    .describe('Longest wait of the helper for the confirmations of its confirmations [0044].'),
  maxUnconfirmedBatches: count({ min: 1, max: 1024 })
    .prefault(8)
    .describe(
      'Number of written batches that may await the confirmations of their confirmations; when it is reached, ' +
        'the helper gathers nothing; 1: the helper waits after every batch, as in [0043].',
    ),
  helperTimeoutMs: durationMs({ min: 1, max: 60_000 })
    .prefault(250)
    .describe('Time without a confirmation after which a worker checks whether the helper died [0044].'),
  requestTimeoutMs: durationMs({ min: 10, max: MAX_DURATION_MS })
    .prefault(30_000)
    .describe(
      'Time after which a worker gives up a sync request; the outcome of the message is then indefinite.',
    ),
});

const Smtp = object({
  host: host().prefault('127.0.0.1').describe('Address on which the worker listens.'),
  port: count({ min: 0, max: 65_535 })
    .prefault(0)
    .describe('Port on which the worker listens; 0: any free port.'),
  hostname: host().prefault('localhost').describe('Host name in the greeting and in the reply to EHLO.'),
  maxMessageBytes: size({ min: 1, max: 2 ** 31 })
    .nullable()
    .prefault(null)
    .describe(
      'Largest message that is accepted (SIZE, RFC 1870); null: the part of maxRecordBytes that the envelope ' +
        'does not need.',
    ),
  maxRecipients: count({ min: 100, max: 10_000 })
    .prefault(1000)
    .describe(
      'Maximum number of recipients of one message; further ones get 452, and the client sends them later ' +
        '(RFC 5321 4.5.3.1.10).',
    ),
  maxHops: count({ min: 1, max: 10_000 })
    .prefault(100)
    .describe(
      'Number of Received headers from which on a message is refused with 554, because it loops (RFC 5321 6.3).',
    ),
  tlsCert: path()
    .nullable()
    .prefault(null)
    .describe('PEM file with the certificate chain for STARTTLS; null: STARTTLS is not offered.'),
  tlsKey: path().nullable().prefault(null).describe('PEM file with the private key of the certificate.'),
  maxConnections: count({ min: 1, max: 65_536 })
    .prefault(1024)
    .describe('Maximum number of open connections per worker.'),
  smsDomain: host()
    .prefault('sms.invalid')
    .describe(
      'Domain whose addresses of up to 15 digits are MSISDNs; messages between them are SMS records [0027].',
    ),
  shutdownGraceMs: durationMs({ min: 0, max: MAX_DURATION_MS })
    .prefault(10_000)
    .describe('Longest time after SIGTERM for messages in flight to be finished.'),
  idleTimeoutMs: durationMs({ min: 10, max: MAX_DURATION_MS })
    .prefault(300_000)
    .describe(
      'Time without a complete command, or without input during a message, after which a client is disconnected; ' +
        'RFC 5321 4.5.3.2.7 asks for 5 minutes at least.',
    ),
  maxConnectionsPerClient: count({ min: 1, max: 65_536 })
    .prefault(256)
    .describe('Maximum number of open connections from one address, per worker.'),
  maxBufferedBytes: size({ min: 1, max: 2 ** 34 })
    .nullable()
    .prefault(null)
    .describe(
      'Memory of a worker for messages that are not stored yet, over all sessions; beyond it the largest message ' +
        'gets 452; null: twice maxMessageBytes, at least 32 MiB.',
    ),
  commandTimeoutMs: durationMs({ min: 10, max: MAX_DURATION_MS })
    .prefault(60_000)
    .describe('Longest time from the first byte of a command to its end.'),
  dataTimeoutMs: durationMs({ min: 10, max: MAX_DURATION_MS })
    .prefault(600_000)
    .describe(
      'Longest time for the data of a message, beside the time that it needs at minDataBytesPerSecond; it leaves ' +
        'room for pauses of 3 minutes (RFC 5321 4.5.3.2.5).',
    ),
  minDataBytesPerSecond: count({ min: 1, max: 2 ** 30 })
    .prefault(1024)
    .describe('Rate at which the data of a message must arrive after dataTimeoutMs.'),
  sessionTimeoutMs: durationMs({ min: 10, max: 7 * MAX_DURATION_MS })
    .prefault(3_600_000)
    .describe('Time after which a session ends with 421 at its next command, or when none is sent.'),
  maxErrors: count({ min: 1, max: 1_000_000 })
    .prefault(100)
    .describe('Number of commands refused with 5xx after which a session ends; before EHLO it ends after 5.'),
  maxCommandsPerMessage: count({ min: 10, max: 1_000_000 })
    .prefault(1000)
    .describe(
      'Number of commands since the last message after which a session ends; accepted recipients do not count.',
    ),
});

const Delivery = object({
  nextHop: hostPort().optional().describe('Destination of mail for which there is no route: host:port.'),
  routes: z
    .record(z.string().toLowerCase(), hostPort(), { error: 'an object of domain: "host:port"' })
    .prefault({})
    .describe('Destinations by the domain of the recipient: host:port.'),
  hostname: host().prefault('localhost').describe('Host name in the EHLO to the next hop.'),
  sessions: count({ min: 1, max: 256 })
    .prefault(4)
    .describe('Maximum number of open sessions to one destination, per worker.'),
  messagesPerSession: count({ min: 1, max: 1_000_000 })
    .prefault(10_000)
    .describe('Number of messages after which a session is closed [0036].'),
  batchMessages: count({ min: 1, max: 65_536 })
    .prefault(256)
    .describe('Maximum number of messages that a worker holds locked for delivery [0035].'),
  batchBytes: size({ min: 1, max: 2 ** 31 })
    .prefault(32 * MIB)
    .describe('Maximum size of the messages that a worker holds locked for delivery; one may be larger.'),
  retryLimit: count({ min: 0, max: 65_535 })
    .nullable()
    .prefault(null)
    .describe(
      'Number of retries after which a message goes to the dead-letter queue [0035]; only answers of the next ' +
        'hop to this message count, not failed connections; null: only maxAgeMs limits the retries.',
    ),
  maxAgeMs: durationMs({ min: 1, max: MAX_AGE_MS })
    .prefault(5 * MAX_DURATION_MS)
    .describe(
      'Age at which a message that cannot be delivered goes to the dead-letter queue (RFC 5321 4.5.4.1), once ' +
        'half of the attempts that fit into this time were made.',
    ),
  parkedPercent: count({ min: 0, max: 100 })
    .prefault(50)
    .describe(
      'Share of the queue, in percent, that failed messages may use while the dead-letter queue is full; beyond ' +
        'it they go back to their senders.',
    ),
  notices: z
    .boolean({ error: 'true or false' })
    .prefault(true)
    .describe('Whether the sender of a dead letter gets a delivery status notification (RFC 3464).'),
  noticeReturnBytes: size({ min: 0, max: 32 * MIB })
    .prefault(64 * KIB)
    .describe('Largest message that a notification returns whole; of a larger one it returns the headers.'),
  backoffInitialMs: durationMs({ min: 1, max: MAX_DURATION_MS })
    .prefault(1000)
    .describe('Pause after the first failed delivery attempt; it doubles with every further failure.'),
  backoffMaxMs: durationMs({ min: 1, max: MAX_DURATION_MS })
    .prefault(900_000)
    .describe('Longest pause between delivery attempts.'),
  connectTimeoutMs: durationMs({ min: 10, max: MAX_DURATION_MS })
    .prefault(10_000)
    .describe('Longest time for connecting to the next hop.'),
  replyTimeoutMs: durationMs({ min: 10, max: MAX_DURATION_MS })
    .prefault(120_000)
    .describe('Time without a reply from the next hop after which the session is given up.'),
  tls: z
    .enum(['off', 'may', 'require'], { error: 'off, may or require' })
    .prefault('may')
    .describe(
      'STARTTLS to next hops. off: never; may: if the hop offers it, with any certificate; require: always, with ' +
        'a certificate for the name of the hop that an authority of tlsCa has signed.',
    ),
  tlsCa: path()
    .nullable()
    .prefault(null)
    .describe('PEM file with the trusted authorities for tls: "require"; null: those of Node.'),
});

const Pair = object({
  directory: path().describe('Directory of the queue data file, relative to the queue directory.'),
  indexDirectory: path()
    .optional()
    .describe('Directory of the index file, if it is not that of the data file [0022].'),
});

const DeadLetter = object({
  dataBytes: dataBytes()
    .nullable()
    .prefault(null)
    .describe('Size of the data file of the dead-letter queue; null: the same as dataBytes of the queue.'),
  entries: entries()
    .nullable()
    .prefault(null)
    .describe('Number of index entries of the dead-letter queue; null: the same as entries of the queue.'),
});

const SettingsInput = object({
  directory: path().prefault('.').describe('Directory of the queue, relative to the working directory.'),
  pairs: z
    .array(Pair, { error: 'a list of one or more pairs' })
    .min(1, { error: 'a list of one or more pairs' })
    .max(64, { error: 'a list of at most 64 pairs' })
    .prefault([{ directory: '0' }])
    .describe(
      'Pairs of a data file and an index file; every pair has its own directory, on any disk [0022].',
    ),
  dataBytes: dataBytes()
    .prefault(64 * MIB)
    .describe('Size of each data file; install writes the files at their full size.'),
  entries: entries()
    .prefault(65_536)
    .describe('Number of index entries of each pair, which is the maximum number of its messages [0019].'),
  workerSlots: count({ min: 1, max: 1000 })
    .prefault(64)
    .describe('Maximum number of workers that have the queue open at the same time.'),
  maxRecordBytes: size({ min: 1024, max: 2 ** 31 })
    .nullable()
    .prefault(null)
    .describe('Largest record, less than half of dataBytes; null: a quarter of dataBytes, at most 32 MiB.'),
  sync: Sync.prefault({}).describe('Settings of the sync helper and its batches [0037-0045].'),
  indexSyncMs: durationMs({ min: 10, max: MAX_DURATION_MS })
    .prefault(10_000)
    .describe('Interval between syncs of the index to the disk [0018].'),
  deadLetter: DeadLetter.prefault({}).describe(
    'Dead-letter queue for messages that could not be delivered, in the subdirectory `dead`.',
  ),
  smtp: Smtp.prefault({}).describe('Settings of inbound mail.'),
  delivery: Delivery.prefault({}).describe('Settings of outbound mail [0035, 0036].'),
});

/**
 * Schema of all settings as files and flags give them. Its output has all defaults filled in and all paths
 * absolute.
 */
export const SettingsSchema = SettingsInput.transform((given, context) => {
  const directory = resolve(given.directory);
  const maxRecordBytes = given.maxRecordBytes ?? Math.min(32 * MIB, Math.floor(given.dataBytes / 4));
  const availableBytes = maxRecordBytes - Math.min(ENVELOPE_BYTES, Math.floor(maxRecordBytes / 2));
  const maxMessageBytes = given.smtp.maxMessageBytes ?? availableBytes;
  const maxBufferedBytes = given.smtp.maxBufferedBytes ?? Math.max(32 * MIB, 2 * maxMessageBytes);
  const deadLetter = {
    directory: resolve(directory, 'dead'),
    dataBytes: given.deadLetter.dataBytes ?? given.dataBytes,
    entries: given.deadLetter.entries ?? given.entries,
  };
  const expect = (holds: boolean, keyPath: string[], message: string, input: unknown) => {
    if (!holds) context.addIssue({ code: 'custom', path: keyPath, message, input });
  };
  const half = given.dataBytes / 2;
  expect(maxRecordBytes < half, ['maxRecordBytes'], `less than half of dataBytes (${half})`, maxRecordBytes);
  expect(
    maxRecordBytes < deadLetter.dataBytes / 2,
    ['deadLetter', 'dataBytes'],
    `more than twice maxRecordBytes (${maxRecordBytes})`,
    deadLetter.dataBytes,
  );
  expect(
    maxMessageBytes <= availableBytes,
    ['smtp', 'maxMessageBytes'],
    `at most ${availableBytes}, what maxRecordBytes leaves beside the envelope`,
    maxMessageBytes,
  );
  expect(
    maxBufferedBytes >= maxMessageBytes,
    ['smtp', 'maxBufferedBytes'],
    `at least maxMessageBytes (${maxMessageBytes})`,
    maxBufferedBytes,
  );
  const pairs = given.pairs.map((pair) => {
    const pairDirectory = resolve(directory, pair.directory);
    return {
      directory: pairDirectory,
      indexDirectory: resolve(directory, pair.indexDirectory ?? pair.directory),
    };
  });
  const pairDirectories = new Set(pairs.map((pair) => pair.directory));
  expect(
    pairDirectories.size === pairs.length,
    ['pairs'],
    'a directory of its own for each pair',
    given.pairs,
  );
  const { tlsCert, tlsKey } = given.smtp;
  const together = 'tlsCert and tlsKey together, or neither';
  expect(tlsKey === null || tlsCert !== null, ['smtp', 'tlsKey'], together, tlsKey);
  expect(tlsCert === null || tlsKey !== null, ['smtp', 'tlsCert'], together, tlsCert);
  const absolute = (file: string | null) => (file === null ? null : resolve(file));
  const smtp = {
    ...given.smtp,
    maxMessageBytes,
    maxBufferedBytes,
    tlsCert: absolute(tlsCert),
    tlsKey: absolute(tlsKey),
  };
  const delivery = { ...given.delivery, tlsCa: absolute(given.delivery.tlsCa) };
  return { ...given, directory, pairs, maxRecordBytes, deadLetter, smtp, delivery };
});

/** Complete settings: all defaults filled in, paths absolute, sizes in bytes, durations in milliseconds. */
export type QueueSettings = z.infer<typeof SettingsSchema>;

/** The settings that determine the layout of the files. They cannot change after a queue is installed. */
export const GEOMETRY_KEYS = [
  'pairs',
  'dataBytes',
  'entries',
  'workerSlots',
  'maxRecordBytes',
  'deadLetter',
] as const;

/**
 * Converts a path for the installed settings: a path below the queue directory becomes relative, so that the
 * queue can be moved.
 */
export function portablePath(directory: string, absolute: string): string {
  const below = `${directory}/`;
  return isAbsolute(absolute) && absolute.startsWith(below) ? absolute.slice(below.length) : absolute;
}
