import { messageOf } from '../../conformance/errors.js';
import { warn } from './console.js';

/**
 * Does work that only adds to a verdict that is known already, such as its bundle. A failure, as on a full disk, is one
 * warning, so that the verdict and its exit code stay.
 * @param what what is missing when the work fails; it begins the warning.
 * @returns the result of the work; undefined when it failed.
 */
export async function attempt<T>(what: string, work: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    warn(`${what}: ${messageOf(error)}`);
    return undefined;
  }
}
