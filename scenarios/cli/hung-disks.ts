import { KitError } from '../../conformance/errors.js';
import { warn } from '../host/console.js';
import { describeHungDisk, hungDisks } from '../host/dead-runs.js';

/** Upper bound of the looks at a stopped disk. Each takes more than a second. */
const MAX_LOOKS = 8;

/**
 * Checks that no dead run has left a stopped disk on this machine. The command would hang at its first disk. A stopped
 * disk of another user's run is a warning: its kit may be alive. It waits some seconds for the watchdog of a kit that was
 * killed just now.
 * @throws KitError kit-failed that names the disk and the command that removes it.
 */
export async function requireNoHungDisk(): Promise<void> {
  let found = await hungDisks();
  const deadOne = () => found.find(({ kit }) => kit === 'dead');
  for (let looks = 1; looks < MAX_LOOKS && deadOne() !== undefined; looks += 1) found = await hungDisks();
  const dead = deadOne();
  if (dead !== undefined) throw new KitError('kit-failed', describeHungDisk(dead));
  for (const disk of found) warn(describeHungDisk(disk));
}
