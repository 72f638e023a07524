import { closeSync, openSync } from 'node:fs';
import { applyEntry } from '../power/crash-image.js';
import { type AppliedWrite, CrashModel } from '../write-log/model.js';
import { WriteLog } from '../write-log/reader.js';
import type { CrashState } from '../write-log/state.js';

/** A recording: the log, open, and the model of the disks that it allows. */
export interface Recording {
  readonly log: WriteLog;
  readonly model: CrashModel;
  close(): void;
}

/**
 * Opens a log in the format of dm-log-writes for exploring; its entries are held in memory, their data is not.
 * @throws LogWritesError when it is no such log, of another version, or ends too early.
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
 * @param image a file that holds the device as it was when the recording began; it becomes the state.
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

/** Does these writes, in their order, to an open image. */
export function applyWrites(log: WriteLog, writes: readonly AppliedWrite[], fd: number): void {
  for (const { entry, sectors } of writes) {
    if (sectors === undefined) applyEntry(log, entry, fd);
    else for (const sector of sectors) applyEntry(log, entry, fd, sector);
  }
}
