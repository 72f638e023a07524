import { constants, lstatSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { FaultContext } from '../fault.js';
import { withFileBelow } from '../files/open-below.js';
import { matchesAny, regularFiles } from '../files/walk.js';
import type { Trace } from './file-trace.js';
import type { Snapshot } from './snapshot.js';

/** What is known of the files of a target from its start under strace. */
export interface TracedStart {
  /** True when the trace shows the calls that read. They slow a target down, so most traces do without them. */
  readonly showsReads: boolean;
  /** Size in bytes of each file just before the start. Files with several names are left out. */
  readonly sizes: ReadonlyMap<string, number>;
  /**
   * Length in bytes of the strace log of each service at the first confirmation. Until then the target has recovered;
   * afterwards it works, and may also throw away files that it needs after a crash.
   */
  readonly recoveredOffsets: Map<string, number>;
}

/** Returns the size in bytes of each file, relative to the data directory, that has only one name. */
export function sizesOfFiles(dataDir: string): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const file of regularFiles(dataDir)) {
    const stats = lstatSync(join(dataDir, file), { throwIfNoEntry: false });
    if (stats?.nlink === 1) sizes.set(file, stats.size);
  }
  return sizes;
}

/**
 * Whether a file is one that the target makes anew at each start. `perhaps`: the trace would have to show reads to
 * tell.
 */
export type Remade = 'yes' | 'no' | 'perhaps';

/**
 * Judges whether a file is one that the target makes anew at each start, so that nothing in it can hold or lead to
 * a message after a crash. There are three ways to know it:
 *
 * - The target file names it in `files.scratch`.
 * - It is the shared memory of a SQLite database in WAL mode, which the first connection after a crash rebuilds.
 * - The trace shows it: at its start the target truncated the file before any process had read or mapped it, and no sync
 *   has ever covered it. The bytes that the truncation kept are the same at the snapshot.
 *
 * A file that was merely never synced is no such file, because a target that forgot a sync looks the same.
 */
export function judgeRemade(
  context: FaultContext,
  file: string,
  path: string,
  traces: ReadonlyMap<string, Trace>,
  { sizes, recoveredOffsets, showsReads }: TracedStart,
  snapshot: Snapshot,
): Remade {
  if (isScratch(context, file)) return 'yes';
  const sizeBytes = sizes.get(file) ?? 0;
  const users = [...traces].filter(([, { files, startUses }]) => files.has(path) || startUses.has(path));
  const isThrownAway =
    users.length > 0 &&
    users.every(([service, { files, startUses }]) => {
      const use = startUses.get(path);
      return (
        use !== undefined &&
        use !== 'used' &&
        use.keptBytes < sizeBytes &&
        use.doneOffset <= (recoveredOffsets.get(service) ?? 0) &&
        files.get(path)?.events.every(({ kind }) => kind === 'write') === true &&
        !snapshot.isChangedBefore(file, use.keptBytes)
      );
    });
  if (!isThrownAway) return 'no';
  return showsReads ? 'yes' : 'perhaps';
}

/** Reports whether a file is known to be made anew at each start without a trace: by its name or its format. */
export function isScratch(context: Pick<FaultContext, 'dataDir' | 'scratchFiles'>, file: string): boolean {
  return matchesAny(file, context.scratchFiles) || isSqliteSharedMemory(context.dataDir, file);
}

const SQLITE_MAGIC = 'SQLite format 3\0';
const SHARED_MEMORY_SUFFIX = '-shm';

function isSqliteSharedMemory(directory: string, file: string): boolean {
  if (!file.endsWith(SHARED_MEMORY_SUFFIX)) return false;
  const magic = Buffer.alloc(SQLITE_MAGIC.length);
  try {
    const database = file.slice(0, -SHARED_MEMORY_SUFFIX.length);
    withFileBelow(directory, database, constants.O_RDONLY, (fd) => readSync(fd, magic, 0, magic.length, 0));
  } catch {
    return false;
  }
  return magic.toString('latin1') === SQLITE_MAGIC;
}
