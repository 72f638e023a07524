import { LOCK, LockFile } from '../platform/locks.js';
import type { QueueSettings } from '../settings/settings.js';
import { readDataFileHeader } from './install.js';
import { inUseError, Pair } from './pair.js';
import type { RestoreReport } from './pair-restore.js';
import { type PairDirectories, pairPaths } from './paths.js';
import { hostPlatform, type Platform } from './platform.js';
import { NOTICE } from './types.js';

/** Reports of the restores, in the order of the pairs; the dead-letter queue is last. */
export interface RebuildReport {
  pairs: (RestoreReport & { directory: string })[];
}

/**
 * Rebuilds the index of every pair and of the dead-letter queue from the data file.
 *
 * @param fromNothing false: does the restore that the first worker does anyway, which uses what the old index
 * knows. true: first renames the old index to `queue.index.old`. Every message that the data file still holds
 * then comes back, also the consumed ones. The old index only names the messages that the data file has lost. The
 * report counts as `uncertain` the messages of which it is not known whether they were consumed. No notices are sent
 * for the dead letters then, because it is not known which were sent before.
 * @throws QueueError `queue-in-use` while another process has one of the pairs open.
 */
export async function rebuildQueue(
  settings: QueueSettings,
  fromNothing = false,
  platform: Platform = hostPlatform,
): Promise<RebuildReport> {
  const rebuild = fromNothing ? 'set-index-aside' : 'with-index';
  const { directory, entries } = settings.deadLetter;
  const { workerSlots } = settings;
  const all = [
    ...settings.pairs.map((directories) => ({ directories, options: { ...settings, rebuild } as const })),
    {
      directories: { directory, indexDirectory: directory },
      options: { entries, workerSlots, retryCountWithoutIndex: NOTICE.unknown, rebuild } as const,
    },
  ];
  // Open none of the pairs when one cannot be opened: half a rebuild would help nobody.
  for (const { directories } of all) rejectInUse(directories, platform);
  const pairs = all.map(({ directories, options }) => {
    const pair = Pair.open(directories, options, platform);
    pair.close();
    if (!pair.restore) throw new Error('a rebuild is always the first to open a pair');
    return { directory: directories.directory, ...pair.restore };
  });
  return { pairs };
}

/** Checks that a pair exists and is not open. `Pair.open` checks it again under its lock. */
function rejectInUse(directories: PairDirectories, { kernel }: Platform): void {
  const { data, lock } = pairPaths(directories);
  readDataFileHeader(data, kernel);
  const locks = new LockFile(lock, kernel);
  const isInUse = locks.isHeldElsewhere(LOCK.users);
  locks.close();
  if (isInUse) throw inUseError(directories);
}
