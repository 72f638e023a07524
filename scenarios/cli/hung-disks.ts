import { KitError } from '../../conformance/errors.js';
import { describeHungDisk, hungDisks } from '../host/dead-runs.js';

/**
 * Checks that no dead run has left a stopped disk on this machine. The command would hang at its first disk.
 * @throws KitError kit-failed that names the disk and the command that removes it.
 */
export function requireNoHungDisk(): void {
  const [first] = hungDisks();
  if (first !== undefined) throw new KitError('kit-failed', describeHungDisk(first));
}
