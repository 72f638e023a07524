import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type Dockerode from 'dockerode';
import { KitError, messageOf } from '../../../conformance/errors.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import { baseImage } from '../../../docker/image/base.js';
import { hasImage } from '../../../docker/image/engine-build.js';
import { PACKAGE_IN_IMAGE, referenceImage } from '../../../docker/image/images.js';
import { isSystemImage, systemImage } from '../../../docker/image/systems.js';
import { stateDirectory } from '../../host/registry.js';
import { packageRoot } from '../../host/version.js';
import type { Places } from '../runtime.js';

/** In which image each service of a target runs, and where its command finds things there. */
export interface TargetImages {
  imageOf(service: string | undefined): string;
  placesOf(service: string | undefined): Places;
  /** Images that the kit did not make: nothing is known of what is in them. */
  foreign: readonly string[];
}

/** Where the package has the target file of the reference implementation, and a copy that of its own. */
const TARGETS = 'conformance/targets';
const PULL_TIMEOUT_MS = 600_000;

/**
 * Gets the images of a target onto the engine: those that it names are pulled when they are not there, and what
 * names none runs in the image of the reference implementation, which has Node. A target that is laid out as the
 * package (the reference implementation, or a copy with a bug in it) is itself in its image.
 * @throws KitError target-unavailable when an image can be neither found nor made.
 */
export async function targetImages(
  engine: Dockerode,
  target: Target,
  say: (line: string) => void,
): Promise<TargetImages> {
  const built = ownPackage(target);
  return imagesOf(engine, target, say, built !== undefined, () => make(engine, built, say));
}

/**
 * The image of the container that keeps a run's network.
 * @throws KitError target-unavailable when it cannot be made.
 */
export async function podImageOf(engine: Dockerode, say: (line: string) => void): Promise<string> {
  return building(() => baseImage(engine, workDir(), say));
}

/** The compiled reference implementation that belongs to a target file which is laid out as in the package. */
export function ownPackage({ dir }: Target): string | undefined {
  const built = resolve(dir, '../../dist/reference-impl');
  return dir.endsWith(`/${TARGETS}`) && existsSync(join(built, 'synchronous/main.js')) ? built : undefined;
}

/**
 * The images that a target names, and for what names none the `usual` one.
 * @param inImage the usual one has the package, and with it the target file.
 */
export async function imagesOf(
  engine: Dockerode,
  target: Target,
  say: (line: string) => void,
  inImage: boolean,
  makeUsual: () => Promise<string>,
): Promise<TargetImages> {
  const services = Object.entries(target.services);
  const named = new Map(
    services.flatMap(([name, { image }]) => (image === undefined ? [] : [[name, image]])),
  );
  const foreign: string[] = [];
  for (const image of new Set(named.values())) {
    if (isSystemImage(image)) {
      const tag = await makeSystem(engine, image, say);
      for (const [service, name] of named) if (name === image) named.set(service, tag);
    } else {
      await pull(engine, image, say);
      foreign.push(image);
    }
  }
  const usual = named.size === services.length ? undefined : await makeUsual();
  // Commands that are of no service run where the first service does.
  const first = services[0]?.[0] ?? '';
  return {
    foreign,
    imageOf: (service = first) => named.get(service) ?? usual ?? '',
    placesOf: (service = first) => ({
      dir: inImage && !named.has(service) ? `${PACKAGE_IN_IMAGE}/${TARGETS}` : target.dir,
      node: 'node',
    }),
  };
}

const workDir = () => join(stateDirectory(), 'images');

async function makeSystem(engine: Dockerode, image: string, say: (line: string) => void): Promise<string> {
  return building(() => systemImage(image, { engine, workDir: workDir(), say }), image);
}

async function make(
  engine: Dockerode,
  built: string | undefined,
  say: (line: string) => void,
): Promise<string> {
  const options = { engine, root: packageRoot(), workDir: workDir(), say };
  return building(() => referenceImage(built === undefined ? options : { ...options, built }));
}

async function building(build: () => Promise<string>, image = ''): Promise<string> {
  try {
    return await build();
  } catch (error) {
    const which = image === '' ? 'the image' : `the image ${image}`;
    throw new KitError('target-unavailable', `${which} cannot be built: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

async function pull(engine: Dockerode, image: string, say: (line: string) => void): Promise<void> {
  if (await hasImage(engine, image)) return;
  say(`pulling ${image}`);
  try {
    const stream = await engine.pull(image, { abortSignal: AbortSignal.timeout(PULL_TIMEOUT_MS) });
    await new Promise<void>((done, failed) => {
      engine.modem.followProgress(stream, (error) => (error ? failed(error) : done()));
    });
  } catch (error) {
    throw new KitError(
      'target-unavailable',
      `image ${image}: it is not on the engine and cannot be pulled: ${messageOf(error)}`,
      { cause: error },
    );
  }
}
