import { join } from 'node:path';

/** The two directories of a data/index pair; they may lie on different disks [0022]. */
export interface PairDirectories {
  directory: string;
  indexDirectory: string;
}

/** The files of a data/index pair. */
export const pairPaths = (pair: PairDirectories) => ({
  data: join(pair.directory, 'queue.data'),
  index: join(pair.indexDirectory, 'queue.index'),
  lock: join(pair.directory, 'queue.lock'),
  keptAside: join(pair.directory, 'kept-aside'),
});
