import { KitError } from '../../conformance/errors.js';
import { warn } from '../host/console.js';
import { describeHungDisk, hungDisks } from '../host/dead-runs.js';

/**
 * Checks that no dead run has left a stopped disk on this machine. The command would hang at its first disk. A stopped
 * disk of another user's run is a warning: its kit may be alive.
 * @throws KitError kit-failed that names the disk and the command that removes it.
 */
export async function requireNoHungDisk(): Promise<void> {
  const found = await hungDisks();
  const dead = found.find(({ kit }) => kit === 'dead');
  if (dead !== undefined) throw new KitError('kit-failed', describeHungDisk(dead));
  for (const disk of found) warn(describeHungDisk(disk));
}
