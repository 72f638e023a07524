import { existsSync, renameSync } from 'node:fs';
import { syncDirectory } from '../platform/directory.js';
import { QueueError } from '../platform/errors.js';
import { LOCK, LockFile } from '../platform/locks.js';
import type { QueueSettings } from '../settings/settings.js';
import { readDataFileHeader } from './install.js';
import { Pair } from './pair.js';
import type { RestoreReport } from './pair-restore.js';
import { pairPaths } from './paths.js';

/** Reports of the restores, in the order of the pairs. */
export interface RebuildReport {
  pairs: (RestoreReport & { directory: string })[];
}

/**
 * Rebuilds the index of every pair from its data file. The dead-letter queue is not rebuilt.
 *
 * @param fromNothing false: does the restore that the first worker does anyway, which uses what the old index
 * knows. true: first renames the old index to `queue.index.old`. Every message that the data file still holds
 * then comes back, also the consumed ones. The report counts the messages of which it is not known whether
 * they were consumed as `uncertain`.
 * @throws QueueError `queue-in-use` while a worker or helper has the queue open.
 */
export async function rebuildQueue(settings: QueueSettings, fromNothing = false): Promise<RebuildReport> {
  const pairs = settings.pairs.map((directories) => {
    const paths = pairPaths(directories);
    readDataFileHeader(paths.data);
    const locks = new LockFile(paths.lock);
    const inUse = locks.isHeldElsewhere(LOCK.users);
    locks.close();
    if (inUse) {
      throw new QueueError(
        'queue-in-use',
        `${directories.directory} is in use: stop its workers and helper first`,
      );
    }
    if (fromNothing && existsSync(paths.index)) {
      renameSync(paths.index, `${paths.index}.old`);
      syncDirectory(directories.indexDirectory);
    }
    const pair = Pair.open(directories, settings);
    pair.close();
    if (!pair.restore) throw new QueueError('queue-in-use', `${directories.directory} was opened meanwhile`);
    return { directory: directories.directory, ...pair.restore };
  });
  return { pairs };
}
