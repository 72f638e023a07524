import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type Dockerode from 'dockerode';
import { baseImage, baseKey } from './base.js';
import { buildImage, hasImage } from './build-image.js';
import { type ContextFile, copyContext, digestOf, kitFiles, referenceFiles } from './context.js';

/** Where the package lies in the images. */
export const PACKAGE_IN_IMAGE = '/opt/plugpull';
/** Images carry it, so that they can be found and pruned. */
export const IMAGE_LABEL = 'plugpull.image';

export interface ImageOptions {
  engine: Dockerode;
  /** Folder of the package. */
  root: string;
  /** The compiled reference implementation; default: the package's own. A changed copy gets an image of its own. */
  built?: string;
  /** A folder for what is only needed while building. */
  workDir: string;
  say(line: string): void;
}

/**
 * The image of the reference implementation, built when there is none with this content. The tag names the content,
 * so an unchanged tree is not built again.
 * @returns its name.
 */
export async function referenceImage(options: ImageOptions): Promise<string> {
  const built = options.built ?? join(options.root, 'dist/reference-impl');
  return ensureImage('reference', referenceFiles(options.root, built), options);
}

/** The image of the kit; the same as for `referenceImage` goes. */
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

/** So many of the latest stay, and whatever is as young as this: another run may be about to use it. */
const MIN_SAVED_IMAGES = 4;
const MIN_AGE_TO_PRUNE_S = 3600;

/** Removes images of earlier sources. One that a container uses stays, and so does what others are made from. */
async function pruneImages(engine: Dockerode, name: 'reference' | 'kit'): Promise<void> {
  const filters = { label: [`${IMAGE_LABEL}=${name}`] };
  const images = await engine.listImages({ filters: JSON.stringify(filters) });
  const old = images
    .filter(({ RepoTags }) => RepoTags?.some((tag) => tag.startsWith(`plugpull/${name}:`)))
    .sort((a, b) => b.Created - a.Created)
    .slice(MIN_SAVED_IMAGES)
    .filter(({ Created }) => Created < Date.now() / 1000 - MIN_AGE_TO_PRUNE_S);
  for (const { Id } of old) {
    // Refused when it is in use, and gone when somebody else prunes too: both are well.
    await engine
      .getImage(Id)
      .remove()
      .catch(() => {});
  }
}
