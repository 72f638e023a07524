import { attempt } from '../host/attempt.js';
import type { Disk } from '../runtime/disk.js';

/**
 * Moves the data of a failed round into its evidence. The verdict is known already, so a failure, as on a full disk, is
 * one warning; then the disk is removed.
 */
export async function saveData(disk: Disk, to: string): Promise<void> {
  const isSaved = await attempt(`the data of the failed round is not in the evidence (${to})`, async () => {
    await disk.saveTo(to);
    return true;
  });
  if (isSaved !== true) disk.remove();
}
