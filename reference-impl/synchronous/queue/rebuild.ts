import { QueueError } from '../../common/platform/errors.js';
import { LockFile } from '../../common/platform/locks.js';
import { LOCK } from '../index/lock-bytes.js';
import type { QueueSettings } from '../settings/settings.js';
import { readDataFileHeader } from './install.js';
import { inUseError, Pair } from './pair.js';
import type { RestoreReport } from './pair-restore.js';
import { type PairDirectories, pairPaths } from './paths.js';
import { hostPlatform, type Platform } from './platform.js';
import { NOTICE } from './types.js';

/** Result of a rebuild. */
export interface RebuildReport {
  /** Reports of the restores, in the order of the pairs; the dead-letter queue is last. */
  pairs: (RestoreReport & { directory: string })[];
  /** Pairs that could not be opened. Their files are as before. */
  failed: { directory: string; error: Error }[];
}

/**
 * Rebuilds as `rebuildEach`, and fails when one pair could not be rebuilt.
 * @throws the error of the first pair that failed, after the others were rebuilt.
 */
export async function rebuildQueue(
  settings: QueueSettings,
  fromNothing = false,
  platform: Platform = hostPlatform,
): Promise<RebuildReport> {
  const report = await rebuildEach(settings, fromNothing, platform);
  if (report.failed[0] !== undefined) throw report.failed[0].error;
  return report;
}

/**
 * Rebuilds the index of every pair and of the dead-letter queue from the data file. A pair that cannot be opened, for
 * example because its data file is missing or damaged, does not keep the others from being rebuilt.
 *
 * @param fromNothing false: does the restore that the first worker does anyway, which uses what the old index
 * knows. true: first renames the old index to `queue.index.old`. Every message that the data file still holds
 * then comes back, also the consumed ones. The old index only names the messages that the data file has lost. The
 * report counts as `uncertain` the messages of which it is not known whether they were consumed. No notices are sent
 * for the dead letters then, because it is not known which were sent before.
 * @throws QueueError `queue-in-use` while another process has one of the pairs open. Nothing is changed then.
 */
export async function rebuildEach(
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
  const report: RebuildReport = { pairs: [], failed: [] };
  const usable = all.filter(({ directories }) =>
    didNotFail(report, directories, () => rejectInUse(directories, platform)),
  );
  // A running gateway has all pairs open. Change none of them then.
  const inUse = report.failed.find(({ error }) => isInUse(error));
  if (inUse !== undefined) throw inUse.error;
  for (const { directories, options } of usable) {
    didNotFail(report, directories, () => {
      const pair = Pair.open(directories, options, platform);
      pair.close();
      if (!pair.restore) throw new Error('a rebuild is always the first to open a pair');
      report.pairs.push({ directory: directories.directory, ...pair.restore });
    });
  }
  return report;
}

const isInUse = (error: Error): boolean => error instanceof QueueError && error.code === 'queue-in-use';

/**
 * Runs a step for one pair, and adds its failure to the report. Only failures of the files count: an error of the
 * program itself is thrown.
 * @returns whether the step succeeded
 */
function didNotFail(report: RebuildReport, { directory }: PairDirectories, step: () => void): boolean {
  try {
    step();
    return true;
  } catch (error) {
    const isOfFiles =
      error instanceof Error &&
      (error instanceof QueueError ? error.code !== 'assertion' : 'syscall' in error);
    if (!isOfFiles) throw error;
    report.failed.push({ directory, error });
    return false;
  }
}

/** Checks that a pair exists and is not open. `Pair.open` checks it again under its lock. */
function rejectInUse(directories: PairDirectories, { kernel }: Platform): void {
  const { data, lock } = pairPaths(directories);
  readDataFileHeader(data, kernel);
  const locks = new LockFile(lock, kernel);
  const isHeld = locks.isHeldElsewhere(LOCK.users);
  locks.close();
  if (isHeld) throw inUseError(directories);
}
