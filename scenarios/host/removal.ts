import { messageOf } from '../../conformance/errors.js';
import { RemovalError } from '../../faults/files/remove-tree.js';

/**
 * Removes something whose result is known already. What cannot be removed is one line of the report, and takes
 * the place neither of a verdict nor of the error that is being handled.
 */
export async function removeOrReport(remove: () => unknown, report: (line: string) => void): Promise<void> {
  try {
    await remove();
  } catch (error) {
    if (!(error instanceof RemovalError)) throw error;
    report(`left: ${messageOf(error)}`);
  }
}
