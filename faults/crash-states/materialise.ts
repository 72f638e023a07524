import { closeSync, openSync } from 'node:fs';
import { applyEntry } from '../power/crash-image.js';
import { type AppliedWrite, CrashModel } from '../write-log/model.js';
import { WriteLog } from '../write-log/reader.js';
import type { CrashState } from '../write-log/state.js';

/** An open write log, with the model of the disks that a power cut may leave. */
export interface Recording {
  readonly log: WriteLog;
  readonly model: CrashModel;
  close(): void;
}

/**
 * Opens a log in the format of dm-log-writes. The entries are held in memory, but not their data.
 * @param end number of entries to read; default: all complete ones.
 * @throws LogWritesError when the file is not a log, has another version, or ends too early.
 */
export function openRecording(path: string, end?: number): Recording {
  const log = new WriteLog(path);
  try {
    const model = new CrashModel([...log.entries(end)]);
    return { log, model, close: () => log.close() };
  } catch (error) {
    log.close();
    throw error;
  }
}

/**
 * Makes the disk of a crash state.
 * @param image path of a file with the device as it was when the recording began. The file is changed into
 *   the crash state.
 * @throws RangeError when no power cut can leave that state.
 */
export function materialise({ log, model }: Recording, state: CrashState, image: string): void {
  const problem = model.whyImpossible(state);
  if (problem !== undefined) throw new RangeError(problem);
  const fd = openSync(image, 'r+');
  try {
    applyWrites(log, model.appliedWrites(state), fd);
  } finally {
    closeSync(fd);
  }
}

/** Applies writes, in their order, to an open image (file descriptor). */
export function applyWrites(log: WriteLog, writes: readonly AppliedWrite[], fd: number): void {
  for (const { entry, sectors } of writes) {
    if (sectors === undefined) applyEntry(log, entry, fd);
    else for (const sector of sectors) applyEntry(log, entry, fd, sector);
  }
}
