import { constants } from 'node:fs';
import { makeDirectories, syncDirectory } from '../../common/platform/directory.js';
import { QueueError } from '../../common/platform/errors.js';
import { FILE_MODE, type Kernel } from '../../common/platform/kernel.js';
import { writeControl } from '../checkpoint/control.js';
import { encodeSlot, slotPath } from '../checkpoint/slot.js';
import { writeSynced } from '../files.js';
import { SegmentRing } from '../log/segment-ring.js';
import { defaultQueues } from '../memory/default-queues.js';
import { type InstalledSettings, MIN_SEGMENTS, pathsOf, writeSettings } from '../settings.js';

/** Settings that the user chooses at the installation. */
export type InstallOptions = Omit<InstalledSettings, 'key'>;

export const DEFAULT_INSTALL_OPTIONS: InstallOptions = { segmentBytes: 16 * 2 ** 20, segments: 8, queues: 8 };

/** Smallest and largest size of a segment in bytes; its unit is a page. */
export const SEGMENT_LIMITS = { min: 4096, max: 256 * 2 ** 20 } as const;

/**
 * Creates the files of a queue. It writes the settings last. After a power cut before that, no queue is installed, and install
 * can run again.
 * @throws QueueError `queue-exists` when one is installed.
 */
export async function installQueue(
  directory: string,
  options: InstallOptions,
  kernel: Kernel,
): Promise<void> {
  const paths = pathsOf(directory);
  if (kernel.exists(paths.settings))
    throw new QueueError(
      'queue-exists',
      `${directory}: found a queue, expected an empty or missing directory`,
    );
  for (const path of [directory, paths.log, paths.queues, paths.aside]) makeDirectories(kernel, path);
  const random = kernel.randomBytes(8);
  const settings = { ...options, key: { low: random.readUInt32LE(0), high: random.readUInt32LE(4) } };
  const ring = new SegmentRing(paths.log, options.segmentBytes, [], kernel);
  for (let sequence = 0; sequence < MIN_SEGMENTS; sequence += 1) await ring.prepare(sequence);
  await installQueues(directory, settings, kernel);
  syncDirectory(directory, kernel);
  writeSettings(directory, settings, kernel);
}

/** Writes the first checkpoint: empty default queues. Their numbers are 1 and up, below every position of the log. */
async function installQueues(
  directory: string,
  { key, queues }: InstalledSettings,
  kernel: Kernel,
): Promise<void> {
  const paths = pathsOf(directory);
  const entries = defaultQueues(queues).map((definition, at) => ({ id: at + 1, definition }));
  for (const { id, definition } of entries) {
    const snapshot = { definition, messages: [], redoPosition: 0 };
    const bytes = Buffer.concat([...encodeSlot({ key, queue: id, checkpoint: 1 }, snapshot, 0)]);
    writeSynced(kernel, slotPath(paths.queues, id, 0), bytes);
  }
  syncDirectory(paths.queues, kernel);
  const fd = kernel.open(paths.control, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, FILE_MODE);
  try {
    const record = entries.map((entry) => ({ ...entry, slot: 0 as const, checkpoint: 1, redo: 0 }));
    await writeControl(kernel, fd, { checkpoint: 1, generation: 0, queues: record });
  } finally {
    kernel.close(fd);
  }
}
