import { join } from 'node:path';

/** The two directories of a data/index pair. They may be on different disks (patent [0022]). */
export interface PairDirectories {
  directory: string;
  indexDirectory: string;
}

/**
 * Returns the paths of a pair: the data file, the index file, the lock file, and the directory with the
 * copies of damaged records.
 */
export const pairPaths = (pair: PairDirectories) => ({
  data: join(pair.directory, 'queue.data'),
  index: join(pair.indexDirectory, 'queue.index'),
  lock: join(pair.directory, 'queue.lock'),
  keptAside: join(pair.directory, 'kept-aside'),
});
