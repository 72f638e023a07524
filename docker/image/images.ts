import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type Dockerode from 'dockerode';
import { baseImage, baseKey } from './base.js';
import { buildImage, hasImage } from './build-image.js';
import { type ContextFile, copyContext, digestOf, kitFiles, referenceFiles } from './context.js';

/** Path of the package in the images. */
export const PACKAGE_IN_IMAGE = '/opt/plugpull';
/** Label of all images of the kit, by which old ones are found and removed. */
export const IMAGE_LABEL = 'plugpull.image';

/** Options for building images. */
export interface ImageOptions {
  engine: Dockerode;
  /** Folder of the package. */
  root: string;
  /**
   * Folder of the compiled reference implementations. Default: that of the package. A changed copy of one gets its own
   * image.
   */
  built?: string;
  /** Folder for temporary files of a build. */
  workDir: string;
  say(line: string): void;
}

/**
 * Returns the image of the reference implementations, and builds it if there is none with this content. The tag
 * is a digest of the content, so an unchanged tree is not built again.
 * @returns the name with the tag.
 */
export async function referenceImage(options: ImageOptions): Promise<string> {
  const built = options.built ?? join(options.root, 'dist/reference-impl');
  return ensureImage('reference', referenceFiles(options.root, built), options);
}

/** Returns the image of the kit, and builds it if there is none with this content, like `referenceImage`. */
export async function kitImage(options: ImageOptions): Promise<string> {
  const files = [
    ...referenceFiles(options.root, options.built ?? join(options.root, 'dist/reference-impl')),
    ...kitFiles(options.root),
  ];
  return ensureImage('kit', files, options);
}

async function ensureImage(
  name: 'reference' | 'kit',
  files: readonly ContextFile[],
  { engine, root, workDir, say }: ImageOptions,
): Promise<string> {
  const dockerfile = join(root, 'docker/Dockerfile');
  const tag = `plugpull/${name}:${digestOf(files, readFileSync(dockerfile, 'utf8'), baseKey())}`;
  if (await hasImage(engine, tag)) return tag;
  const startMs = performance.now();
  mkdirSync(workDir, { recursive: true });
  const dir = mkdtempSync(join(workDir, 'image-'));
  try {
    const base = await baseImage(engine, dir, say);
    const context = join(dir, 'context');
    mkdirSync(context);
    copyContext(files, context);
    copyFileSync(dockerfile, join(context, 'Dockerfile'));
    await buildImage(engine, context, {
      tag,
      target: name,
      buildargs: { BASE: base },
      labels: { [IMAGE_LABEL]: name },
    });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  await pruneImages(engine, name);
  say(`built ${tag} in ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
  return tag;
}

/** Number of the latest images that are not removed. */
const MIN_SAVED_IMAGES = 4;
/** Age below which an image is not removed, in seconds: another run may be about to use it. */
const MIN_AGE_TO_PRUNE_S = 3600;

/**
 * Removes images of earlier sources. Images that a container uses, or that are the base of another image, stay.
 */
async function pruneImages(engine: Dockerode, name: 'reference' | 'kit'): Promise<void> {
  const filters = { label: [`${IMAGE_LABEL}=${name}`] };
  const images = await engine.listImages({ filters: JSON.stringify(filters) });
  const old = images
    .filter(({ RepoTags }) => RepoTags?.some((tag) => tag.startsWith(`plugpull/${name}:`)))
    .sort((a, b) => b.Created - a.Created)
    .slice(MIN_SAVED_IMAGES)
    .filter(({ Created }) => Created < Date.now() / 1000 - MIN_AGE_TO_PRUNE_S);
  for (const { Id } of old) {
    // Ignore errors: the engine refuses to remove an image in use, and another process may have removed it
    // already.
    await engine
      .getImage(Id)
      .remove()
      .catch(() => {});
  }
}
