import { closeSync, openSync } from 'node:fs';
import { applyWrites, type Recording } from '../../../faults/crash-states/materialise.js';
import { copySparse } from '../../../faults/power/mounts.js';

/**
 * Makes an image of the recorded disk on which the first `baseAt` writes and flushes of the log are done;
 * returns its path.
 * @param from path of the image from before the recording.
 */
export function makeBase(from: string, { log, model }: Recording, baseAt: number, path: string): string {
  copySparse(from, path);
  const fd = openSync(path, 'r+');
  applyWrites(log, model.writes(0, baseAt), fd);
  closeSync(fd);
  return path;
}
