import { KitError } from '../../../conformance/errors.js';
import { didYouMean } from '../../../conformance/nearest.js';
import { dockerRuntime } from '../docker/container-deployment.js';
import { processRuntime } from '../process/process-runtime.js';
import type { Runtime } from '../runtime.js';
import { vmRuntime } from '../vm/vm-runtime.js';

/** All runtimes, in the order in which they are listed for people. */
export const RUNTIMES: readonly Runtime[] = [processRuntime, dockerRuntime, vmRuntime];

/**
 * Returns the runtime with this name.
 * @throws KitError bad-usage when the name is unknown, target-unavailable when the runtime does not work on
 * this machine.
 */
export async function chooseRuntime(name: string): Promise<Runtime> {
  const runtime = RUNTIMES.find((one) => one.name === name);
  if (runtime === undefined) {
    const hint = didYouMean(
      name,
      RUNTIMES.map((one) => one.name),
    );
    throw new KitError('bad-usage', `--runtime ${name}: expected process, docker or vm${hint}`);
  }
  const availability = await runtime.available();
  if (availability.available) return runtime;
  throw new KitError('target-unavailable', `--runtime ${name}: ${availability.why}; ${availability.remedy}`);
}
