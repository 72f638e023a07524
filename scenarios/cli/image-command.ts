import { join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { FULL_IMAGE, fullImage } from '../../docker/image/full.js';
import { log, print, printJson } from '../host/console.js';
import { stateDirectory } from '../host/registry.js';
import { packageRoot } from '../host/version.js';
import { connectEngine, engineAddress, engineAvailability } from '../runtime/docker/engine.js';

/**
 * Builds the image of the kit with all engines, if there is none with this content, and prints its name. Resolves to
 * the exit code.
 * @throws KitError target-unavailable when no container engine answers, or the image cannot be built.
 */
export async function imageCommand(flags: { json?: boolean }): Promise<number> {
  const address = engineAddress();
  const availability = await engineAvailability(address);
  if (!availability.available)
    throw new KitError('target-unavailable', `image: ${availability.why}; ${availability.remedy}`);
  const engine = await connectEngine(address);
  const workDir = join(stateDirectory(), 'images');
  const name = await fullImage({ engine, root: packageRoot(), workDir, say: log }).catch((error: unknown) => {
    throw new KitError('target-unavailable', `the image cannot be built: ${messageOf(error)}`, {
      cause: error,
    });
  });
  if (flags.json) printJson({ image: name, tag: FULL_IMAGE });
  else print(name);
  log(`also named ${FULL_IMAGE}; run it: docker run --rm -v "$PWD":/work ${FULL_IMAGE} doctor`);
  return EXIT_CODES.pass;
}
