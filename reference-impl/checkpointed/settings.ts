import { join } from 'node:path';
import { syncDirectory } from '../common/platform/directory.js';
import { QueueError } from '../common/platform/errors.js';
import type { Kernel } from '../common/platform/kernel.js';
import type { ChecksumKey } from '../common/record/checksum.js';
import { PAGE_BYTES, readWhole, writeSynced } from './files.js';

/** Settings that `install` fixes. They are in `settings.json`, in the directory of the queue. */
export interface InstalledSettings {
  /** Size of a segment of the log, in bytes: a multiple of 4096. */
  segmentBytes: number;
  /** Upper bound of the number of segments. */
  segments: number;
  /** Number of default queues, `q0` to `q{N-1}`. A message that names no queue goes to one of them. */
  queues: number;
  /** Secret key of the checksums. */
  key: ChecksumKey;
}

/** Settings that each start of the server can change. */
export interface RunSettings {
  /** Time between two checkpoints, in milliseconds. */
  checkpointMs: number;
  /** Upper bound of the memory of all messages, in bytes. */
  memoryBytes: number;
}

export const DEFAULT_RUN_SETTINGS: RunSettings = { checkpointMs: 5000, memoryBytes: 512 * 2 ** 20 };

/** Smallest number of segments: one to write to, one prepared, one in reserve for consumptions, and one to reuse. */
export const MIN_SEGMENTS = 4;
/** Bytes of a segment that no body can use: the header of a record and the longest id need them. */
const SEGMENT_RESERVE_BYTES = 512;
/** Upper bound of the id of a message in bytes of UTF-8. */
export const MAX_ID_BYTES = 400;
/** Upper bound of the size of one message in bytes, whatever the size of a segment. */
const MAX_MESSAGE_BYTES = 16 * 2 ** 20;

/** Returns the size of the largest message that the queue accepts, in bytes. */
export const maxMessageBytes = ({ segmentBytes }: InstalledSettings): number =>
  Math.min(MAX_MESSAGE_BYTES, segmentBytes - SEGMENT_RESERVE_BYTES);

/** The paths of a queue's files. */
export const pathsOf = (directory: string) => ({
  settings: join(directory, 'settings.json'),
  control: join(directory, 'control'),
  log: join(directory, 'log'),
  queues: join(directory, 'queues'),
  aside: join(directory, 'aside'),
});

const FORMAT_VERSION = 1;

/** Writes the settings. After a power cut the file is complete or does not exist. */
export function writeSettings(directory: string, settings: InstalledSettings, kernel: Kernel): void {
  const path = pathsOf(directory).settings;
  const { key, ...rest } = settings;
  const hex = (word: number) => word.toString(16).padStart(8, '0');
  const text = JSON.stringify({ version: FORMAT_VERSION, ...rest, key: hex(key.high) + hex(key.low) });
  writeSynced(kernel, `${path}.new`, Buffer.from(`${text}\n`));
  kernel.rename(`${path}.new`, path);
  syncDirectory(directory, kernel);
}

/**
 * Reads the settings of an installed queue.
 * @throws QueueError `not-a-queue` when none is installed, `wrong-version` or `damaged-queue`.
 */
export function readSettings(directory: string, kernel: Kernel): InstalledSettings {
  const { settings: path } = pathsOf(directory);
  let bytes: Buffer;
  try {
    bytes = readWhole(kernel, path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause;
    throw new QueueError('not-a-queue', `${directory}: found no queue, expected one that install has made`, {
      cause,
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString());
  } catch {
    value = undefined;
  }
  const { version, segmentBytes, segments, queues, key } = Object(value) as Record<string, unknown>;
  if (version !== undefined && version !== FORMAT_VERSION)
    throw new QueueError(
      'wrong-version',
      `${path}: found version ${String(version)}, expected ${FORMAT_VERSION}`,
    );
  const isCount = (found: unknown): found is number => Number.isSafeInteger(found) && Number(found) > 0;
  if (
    !isCount(segmentBytes) ||
    segmentBytes % PAGE_BYTES !== 0 ||
    !isCount(segments) ||
    !isCount(queues) ||
    !/^[0-9a-f]{16}$/.test(String(key))
  )
    throw new QueueError('damaged-queue', `${path}: expected the settings that install has written`);
  const word = (from: number) => Number.parseInt(String(key).slice(from, from + 8), 16);
  return { segmentBytes, segments, queues, key: { high: word(0), low: word(8) } };
}
