import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type Dockerode from 'dockerode';
import { KitError, messageOf } from '../../../conformance/errors.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import { baseImage } from '../../../docker/image/base.js';
import { hasImage } from '../../../docker/image/build-image.js';
import { referencePrograms } from '../../../docker/image/context.js';
import { PACKAGE_IN_IMAGE, referenceImage } from '../../../docker/image/images.js';
import { isSystemImage, systemImage } from '../../../docker/image/systems.js';
import { faketimeLibrary } from '../../../faults/process/clock.js';
import { stateDirectory } from '../../host/registry.js';
import { packageRoot } from '../../host/version.js';
import type { RuntimePaths } from '../runtime.js';
import { copyProgram, findImageUser, ImageContents, type ImageUser } from './image-contents.js';
import type { ImageTool } from './image-tools.js';

/**
 * The image of each service of a target, and the paths in it. A service of a node may be named `SERVICE@NODE`. A call without a
 * service returns those of install and verify.
 */
export interface TargetImages {
  imageOf(service: string | undefined): string;
  pathsFor(service: string | undefined): RuntimePaths;
  /** Returns the images that the target names and that do not have a tool. */
  toolsMissingIn(tool: ImageTool): readonly string[];
  /** Returns the numbers of the user of a service; undefined when the target names no user. */
  ownerOf(service: string | undefined): ImageUser | undefined;
}

/** Folder of the target files of reference implementations, in the package and in copies of one. */
const TARGETS_DIR = 'conformance/targets';
const PULL_TIMEOUT_MS = 600_000;

/**
 * Provides the images of a target on the container engine. It pulls an image that the target names and the
 * engine lacks. A service that names no image runs in the image of the reference implementations, which has
 * Node. A target with the layout of the package (a reference implementation, or a copy with a bug in it) is
 * itself in its image.
 * @throws KitError target-unavailable when an image is missing and can be neither pulled nor built.
 */
export async function ensureTargetImages(
  engine: Dockerode,
  target: Target,
  log: (line: string) => void,
): Promise<TargetImages> {
  const built = findReferenceBuild(target);
  return resolveImages(engine, target, log, built !== undefined, () =>
    makeReferenceImage(engine, built, log),
  );
}

/**
 * Provides the image of the pod, the container that keeps a run's network.
 * @throws KitError target-unavailable when the image cannot be built.
 */
export async function ensurePodImage(engine: Dockerode, log: (line: string) => void): Promise<string> {
  return wrapBuildError(() => baseImage(engine, workDir(), log));
}

/**
 * Finds the compiled reference implementations beside a target file, if that file lies as in the package.
 * @returns their folder; undefined for any other target.
 */
export function findReferenceBuild({ dir }: Target): string | undefined {
  const built = resolve(dir, '../../dist/reference-impl');
  return dir.endsWith(`/${TARGETS_DIR}`) && referencePrograms(built).length > 0 ? built : undefined;
}

/**
 * Provides the images that a target names, and a default image for services that name none.
 * @param defaultHasTarget true when the default image contains the package, and with it the target file.
 * @param mountsPrograms true when the runtime mounts programs into the default image, so that they are not in it.
 * @param makeDefault makes the default image; is called only if a service needs it.
 */
export async function resolveImages(
  engine: Dockerode,
  target: Target,
  log: (line: string) => void,
  defaultHasTarget: boolean,
  makeDefault: () => Promise<string>,
  mountsPrograms = false,
): Promise<TargetImages> {
  const services = Object.entries(target.services);
  const named = new Map(
    services.flatMap(([name, { image }]) => (image === undefined ? [] : [[name, image]])),
  );
  for (const image of new Set(named.values())) {
    if (isSystemImage(image)) {
      const tag = await makeSystemImage(engine, image, log);
      for (const [service, name] of named) if (name === image) named.set(service, tag);
    } else {
      await pullIfMissing(engine, image, log);
    }
  }
  const defaultImage = named.size === services.length ? undefined : await makeDefault();
  // A command that belongs to no service runs in the image of the first service.
  const first = services[0]?.[0] ?? '';
  const imageOf = (service = first) => named.get(withoutNode(service)) ?? defaultImage ?? '';
  const { owners, missingTools } = await inspectImages(
    engine,
    target,
    imageOf,
    new Set(named.values()),
    mountsPrograms,
  );
  return {
    toolsMissingIn: (tool) => missingTools.get(tool) ?? [],
    ownerOf: (service = first) => owners.get(withoutNode(service)),
    imageOf,
    pathsFor: (service = first) => ({
      dir: defaultHasTarget && !named.has(service) ? `${PACKAGE_IN_IMAGE}/${TARGETS_DIR}` : target.dir,
      node: 'node',
    }),
  };
}

/** Returns the name of a service in the target file. In a cluster, the name of a running one is `SERVICE@NODE`. */
const withoutNode = (service: string): string => service.replace(/@[^@]*$/, '');

/** Path of the package's static busybox in the pod image. */
const BUSYBOX_IN_IMAGE = '/bin/busybox';

/**
 * Provides a static busybox on this machine, out of the pod image.
 * @returns its path; undefined when the image has none.
 */
export async function ensureBusybox(engine: Dockerode, podImage: string): Promise<string | undefined> {
  const path = join(workDir(), `busybox-${podImage.replace(/^.*:/, '')}`);
  if (existsSync(path)) return path;
  const copied = await ImageContents.open(engine, podImage, (contents) =>
    copyProgram(contents, BUSYBOX_IN_IMAGE, path),
  );
  return copied ? path : undefined;
}

const workDir = () => join(stateDirectory(), 'images');

async function makeSystemImage(
  engine: Dockerode,
  image: string,
  log: (line: string) => void,
): Promise<string> {
  return wrapBuildError(() => systemImage(image, { engine, workDir: workDir(), say: log }), image);
}

async function makeReferenceImage(
  engine: Dockerode,
  built: string | undefined,
  log: (line: string) => void,
): Promise<string> {
  const options = { engine, root: packageRoot(), workDir: workDir(), say: log };
  return wrapBuildError(() => referenceImage(built === undefined ? options : { ...options, built }));
}

async function wrapBuildError(build: () => Promise<string>, image = ''): Promise<string> {
  try {
    return await build();
  } catch (error) {
    const which = image === '' ? 'the image' : `the image ${image}`;
    throw new KitError('target-unavailable', `${which} cannot be built: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

async function pullIfMissing(engine: Dockerode, image: string, log: (line: string) => void): Promise<void> {
  if (await hasImage(engine, image)) return;
  log(`pulling ${image}`);
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

/**
 * Looks into the images of a target: for the programs that its commands name, for its users, and for the tools
 * of faults.
 * @throws KitError bad-target when an image lacks a program or a user.
 */
async function inspectImages(
  engine: Dockerode,
  target: Target,
  imageOf: (service?: string) => string,
  named: ReadonlySet<string>,
  mountsPrograms: boolean,
): Promise<{ owners: Map<string, ImageUser>; missingTools: Map<ImageTool, string[]> }> {
  const owners = new Map<string, ImageUser>();
  const missingTools = new Map<ImageTool, string[]>();
  for (const image of new Set(Object.keys(target.services).map(imageOf))) {
    // Programs may be mounted into the default image, as Node is in the lab VM.
    const isMounted = mountsPrograms && !named.has(image);
    const commands = isMounted ? [] : programsIn(target, image, imageOf);
    const users = Object.entries(target.services).filter(
      ([name, { user }]) => user !== undefined && imageOf(name) === image,
    );
    if (isMounted && users.length === 0) continue;
    await ImageContents.open(engine, image, async (contents) => {
      for (const [key, program] of commands) {
        if (await contents.hasProgram(program)) continue;
        throw new KitError(
          'bad-target',
          `${key}: image ${image} has no program ${program}: expected a program of the image, or a path below {dir}`,
        );
      }
      for (const [name, { user = '' }] of users)
        owners.set(name, await findImageUser(contents, `services.${name}.user`, image, user));
      for (const tool of await missingToolsOf(contents))
        missingTools.set(tool, [...(missingTools.get(tool) ?? []), image]);
    });
  }
  return { owners, missingTools };
}

/** Returns the programs of the commands that run in an image, with their key paths. Those below `{dir}` are not in it. */
function programsIn(
  { services, install, promote, verify, nudge }: Target,
  image: string,
  imageOf: (service?: string) => string,
): [key: string, program: string][] {
  const commands: [string, readonly string[] | undefined, string | undefined][] = [
    ...Object.entries(services).map(([name, { command }]): [string, readonly string[], string] => [
      `services.${name}.command.0`,
      command,
      name,
    ]),
    ['install.0', install, undefined],
    ['promote.0', promote, undefined],
    ['verify.0', verify, undefined],
    ['nudge.0', nudge, undefined],
  ];
  return commands.flatMap(([key, command, service]): [string, string][] => {
    const program = command?.[0] === '{node}' ? 'node' : command?.[0];
    if (program === undefined || program.includes('{') || imageOf(service) !== image) return [];
    return [[key, program]];
  });
}

async function missingToolsOf(contents: ImageContents): Promise<ImageTool[]> {
  const missing: ImageTool[] = [];
  if (!(await contents.hasProgram('strace'))) missing.push('strace');
  const library = faketimeLibrary();
  if (library === undefined || !(await contents.has(library))) missing.push('libfaketime');
  return missing;
}
