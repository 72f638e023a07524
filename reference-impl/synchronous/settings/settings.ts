import { isAbsolute, resolve } from 'node:path';
import { z } from 'zod';
import { count, durationMs, size } from './units.js';

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const PAGE_BYTES = 4096;
/** Room that envelope and record header take beside the message in a record, at the most recipients by default. */
const ENVELOPE_BYTES = 512 * 1024;
const MAX_DURATION_MS = 24 * 3_600_000;

const path = () => z.string({ error: 'a path' }).min(1, { error: 'a path' });
const host = () =>
  z.string({ error: 'a host name or address' }).regex(/^[A-Za-z0-9_.:-]{1,255}$/, {
    error: 'a host name or address',
  });
/** `host:port`, with an IPv6 address in brackets. */
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
      'A batch is written when its range reaches so many bytes ([0045]; claims 6, 8, 22, 24, 38, 51).',
    ),
  maxBatchRequests: count({ min: 1, max: 65_536 })
    .prefault(4096)
    .describe('A batch is written when it holds so many requests ([0045]; claims 9, 25, 39).'),
  maxGatherMs: durationMs({ min: 0, max: 60_000 })
    .prefault(0)
    .describe(
      'A batch is written so long after its first request at the latest; 0: whatever one read gathered is ' +
        'written at once ([0042, 0045]; claims 10, 26, 36, 40).',
    ),
  maxIdleMs: durationMs({ min: 0, max: 60_000 })
    .prefault(0)
    .describe(
      'A batch is written when no new request came for so long ([0045]; claims 11, 27, 41). Only of effect ' +
        'below maxGatherMs; 0: no limit of its own.',
    ),
  maxSinceWriteMs: durationMs({ min: 0, max: 60_000 })
    .nullable()
    .prefault(null)
    .describe(
      'A batch is written when the previous write was so long ago (claims 5, 21); null: no such rule.',
    ),
  contiguousRequests: count({ min: 2, max: 65_536 })
    .nullable()
    .prefault(null)
    .describe(
      'A batch is written as soon as it holds so many requests that lie end to end ([0042]; claims 7, 23, 37); ' +
        'null: no such rule.',
    ),
  maxGapPages: count({ min: 0, max: 2 ** 34 })
    .nullable()
    .prefault(null)
    .describe(
      'A request that lies further than so many 4096-byte pages from the batch is not substantially contiguous ' +
        'with it and waits for the next ([0045]; claims 12, 28, 42); null: no limit.',
    ),
  maxGapBytes: size({ min: 0, max: 2 ** 46 })
    .nullable()
    .prefault(null)
    .describe('The same in bytes ([0045]; claims 13, 29, 43); null: no limit.'),
  writeOnMisfit: z
    .boolean({ error: 'true or false' })
    .prefault(true)
    .describe(
      'A request that is not substantially contiguous makes the batch be written (claims 12, 13, 28, 29, 42, 43); ' +
        'false: it only waits in the temporary storage while the batch gathers on ([0051], claims 16, 33).',
    ),
  confirmationTimeoutMs: durationMs({ min: 1, max: 60_000 })
    .prefault(200)
    .describe('The helper waits so long for the confirmations of its confirmations [0044].'),
  maxUnconfirmedBatches: count({ min: 1, max: 1024 })
    .prefault(8)
    .describe(
      'So many written batches may wait for the confirmations of their confirmations while the next is gathered; ' +
        '1: the helper waits for each, as in [0043].',
    ),
  helperTimeoutMs: durationMs({ min: 1, max: 60_000 })
    .prefault(250)
    .describe('A worker waits so long for a confirmation before it looks whether the helper died [0044].'),
  requestTimeoutMs: durationMs({ min: 10, max: MAX_DURATION_MS })
    .prefault(30_000)
    .describe(
      'A worker gives a sync request up after so long; whether the message is stored is then indefinite.',
    ),
});

const Smtp = object({
  host: host().prefault('127.0.0.1').describe('The address that the worker listens on.'),
  port: count({ min: 0, max: 65_535 })
    .prefault(0)
    .describe('The port that the worker listens on; 0: any free one.'),
  hostname: host().prefault('localhost').describe('The name in the greeting and in the answer to EHLO.'),
  maxMessageBytes: size({ min: 1, max: 2 ** 31 })
    .nullable()
    .prefault(null)
    .describe('The largest message that is taken (SIZE, RFC 1870); null: what maxRecordBytes leaves.'),
  maxRecipients: count({ min: 1, max: 10_000 }).prefault(1000).describe('Most recipients of one message.'),
  maxConnections: count({ min: 1, max: 65_536 })
    .prefault(1024)
    .describe('Most connections at a time of one worker.'),
  smsDomain: host()
    .prefault('sms.invalid')
    .describe(
      'Addresses of up to 15 digits in this domain are MSISDNs; such messages are SMS records [0027].',
    ),
  shutdownGraceMs: durationMs({ min: 0, max: MAX_DURATION_MS })
    .prefault(10_000)
    .describe('After SIGTERM, what is in flight may take so long.'),
  idleTimeoutMs: durationMs({ min: 10, max: MAX_DURATION_MS })
    .prefault(300_000)
    .describe('A client that sends nothing for so long is disconnected (RFC 5321 4.5.3.2.7).'),
});

const Delivery = object({
  nextHop: hostPort().optional().describe('Where mail goes that no route names: host:port.'),
  routes: z
    .record(z.string().toLowerCase(), hostPort(), { error: 'an object of domain: "host:port"' })
    .prefault({})
    .describe('Destination by the domain of a recipient: host:port.'),
  hostname: host().prefault('localhost').describe('The name that EHLO gives to the next hop.'),
  sessions: count({ min: 1, max: 256 })
    .prefault(4)
    .describe('Most sessions at a time to one destination, per worker.'),
  messagesPerSession: count({ min: 1, max: 1_000_000 })
    .prefault(10_000)
    .describe('A session is closed after so many messages [0036].'),
  batchMessages: count({ min: 1, max: 65_536 })
    .prefault(256)
    .describe('Most messages that a worker holds locked for delivery [0035].'),
  batchBytes: size({ min: 1, max: 2 ** 31 })
    .prefault(32 * MIB)
    .describe('Most message bytes that a worker holds locked for delivery; one message may be larger.'),
  retryLimit: count({ min: 0, max: 65_535 })
    .prefault(100)
    .describe('After so many failed tries a message goes to the dead-letter queue [0035].'),
  backoffInitialMs: durationMs({ min: 1, max: MAX_DURATION_MS })
    .prefault(1000)
    .describe('The pause after the first failed try; it doubles with each.'),
  backoffMaxMs: durationMs({ min: 1, max: MAX_DURATION_MS })
    .prefault(900_000)
    .describe('The longest pause between tries.'),
  connectTimeoutMs: durationMs({ min: 10, max: MAX_DURATION_MS })
    .prefault(10_000)
    .describe('So long a connection to the next hop may take.'),
  replyTimeoutMs: durationMs({ min: 10, max: MAX_DURATION_MS })
    .prefault(120_000)
    .describe('So long the next hop may be silent before the session is given up.'),
});

const Pair = object({
  directory: path().describe('Directory of the queue data file, relative to the queue directory.'),
  indexDirectory: path().optional().describe('Directory of the index file, when on another disk [0022].'),
});

const DeadLetter = object({
  dataBytes: dataBytes()
    .nullable()
    .prefault(null)
    .describe('Size of its data file; null: that of the queue.'),
  entries: entries()
    .nullable()
    .prefault(null)
    .describe('Number of its index entries; null: that of the queue.'),
});

const SettingsInput = object({
  directory: path().prefault('.').describe('The directory of the queue; relative to the working directory.'),
  pairs: z
    .array(Pair, { error: 'a list of one or more pairs' })
    .min(1, { error: 'a list of one or more pairs' })
    .max(64, { error: 'a list of at most 64 pairs' })
    .prefault([{ directory: '0' }])
    .describe(
      'The data/index file pairs, each in a directory of its own, on different disks if wanted [0022].',
    ),
  dataBytes: dataBytes()
    .prefault(64 * MIB)
    .describe('Size of each queue data file; written in full at install.'),
  entries: entries()
    .prefault(65_536)
    .describe('Number of index entries of each pair: most messages it can hold [0019].'),
  workerSlots: count({ min: 1, max: 1000 })
    .prefault(64)
    .describe('Most workers that have the queue open at a time.'),
  maxRecordBytes: size({ min: 1024, max: 2 ** 31 })
    .nullable()
    .prefault(null)
    .describe('The largest record, below half of dataBytes; null: a quarter of dataBytes, at most 32 MiB.'),
  sync: Sync.prefault({}).describe('The sync helper and its batches [0037-0045].'),
  indexSyncMs: durationMs({ min: 10, max: MAX_DURATION_MS })
    .prefault(10_000)
    .describe('The index is synced to disk every so often [0018].'),
  deadLetter: DeadLetter.prefault({}).describe(
    'The secondary queue, for what could not be delivered; in `dead`.',
  ),
  smtp: Smtp.prefault({}).describe('Mail coming in.'),
  delivery: Delivery.prefault({}).describe('Mail going out [0035, 0036].'),
});

/** The whole of a queue's settings as a file or flags give them; its output has every default and path filled in. */
export const SettingsSchema = SettingsInput.transform((given, context) => {
  const directory = resolve(given.directory);
  const maxRecordBytes = given.maxRecordBytes ?? Math.min(32 * MIB, Math.floor(given.dataBytes / 4));
  const availableBytes = maxRecordBytes - Math.min(ENVELOPE_BYTES, Math.floor(maxRecordBytes / 2));
  const maxMessageBytes = given.smtp.maxMessageBytes ?? availableBytes;
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
  const smtp = { ...given.smtp, maxMessageBytes };
  return { ...given, directory, pairs, maxRecordBytes, deadLetter, smtp };
});

/** Complete settings: every default filled in, all paths absolute, sizes in bytes, durations in milliseconds. */
export type QueueSettings = z.infer<typeof SettingsSchema>;

/** The settings that fix what the files look like; they cannot change once a queue is installed. */
export const GEOMETRY_KEYS = [
  'pairs',
  'dataBytes',
  'entries',
  'workerSlots',
  'maxRecordBytes',
  'deadLetter',
] as const;

/** A path as it is kept in the installed settings: below the queue directory relative, so that a queue can move. */
export function portablePath(directory: string, absolute: string): string {
  const below = `${directory}/`;
  return isAbsolute(absolute) && absolute.startsWith(below) ? absolute.slice(below.length) : absolute;
}
