import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type Dockerode from 'dockerode';
import { baseKey, copyNode, makeRootfs, pullBase } from './base.js';
import { buildImage, hasImage } from './build-image.js';
import { digestOf } from './context.js';
import { type ImageOptions, kitImage } from './images.js';

const REPOSITORY = 'plugpull';
const LATEST = 'latest';
/** Name under which the latest image of the kit with all engines can be run. */
export const FULL_IMAGE = `${REPOSITORY}:${LATEST}`;

/**
 * Packages of the image with all engines: what faults and power backends use, Python for targets that are written in
 * it, and a Debian root in which more packages can be installed.
 */
const FULL_PACKAGES = [
  ...['strace', 'libfaketime', 'faketime', 'busybox-static', 'iptables'],
  ...['qemu-system-common', 'e2fsprogs', 'xfsprogs', 'dmsetup', 'mount', 'util-linux', 'procps'],
  ...['iproute2', 'nftables'],
  ...['python3', 'ca-certificates', 'libstdc++6'],
];
const EXCLUDED_PATHS = ['/usr/share/man/*', '/usr/share/doc/*', '/usr/share/locale/*', '/usr/share/info/*'];
const FILES = ['Dockerfile.full', 'entrypoint.mjs'];

/**
 * Returns the image of the kit with all engines, and builds it if there is none with this content. Needs no registry.
 * The name FULL_IMAGE is given to it as well.
 */
export async function fullImage(options: ImageOptions): Promise<string> {
  const { engine, root, workDir, say } = options;
  const kit = await kitImage(options);
  const base = await fullBase(options);
  const files = FILES.map((name) => ({ source: join(root, 'docker', name), to: name }));
  const tag = `plugpull/full:${digestOf(files, kit, base)}`;
  if (!(await hasImage(engine, tag))) {
    const startMs = performance.now();
    mkdirSync(workDir, { recursive: true });
    const dir = mkdtempSync(join(workDir, 'full-'));
    try {
      for (const { source, to } of files) copyFileSync(source, join(dir, to));
      copyFileSync(join(dir, 'Dockerfile.full'), join(dir, 'Dockerfile'));
      await buildImage(engine, dir, {
        tag,
        buildargs: { BASE: base, KIT: kit },
        labels: { 'plugpull.image': 'full' },
      });
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
    say(`built ${tag} in ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
  }
  await engine.getImage(tag).tag({ repo: REPOSITORY, tag: LATEST });
  return tag;
}

/** Returns the base of the image: a complete Debian with Node and all engines. */
async function fullBase({ engine, workDir, say }: ImageOptions): Promise<string> {
  const tag = `plugpull/full-base:${digestOf([], baseKey(), ...FULL_PACKAGES, ...EXCLUDED_PATHS)}`;
  if (await hasImage(engine, tag)) return tag;
  mkdirSync(workDir, { recursive: true });
  const dir = mkdtempSync(join(workDir, 'full-base-'));
  try {
    const why = await pullBase(engine, tag, dir, say, FULL_PACKAGES).then(
      () => undefined,
      (error: unknown) => String(error instanceof Error ? error.message : error).split('\n')[0],
    );
    if (why === undefined) return tag;
    say(`no base from a registry (${why}): making one from Debian packages, which takes a minute or more`);
    await buildFromPackages(engine, tag, dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  return tag;
}

async function buildFromPackages(engine: Dockerode, tag: string, dir: string): Promise<void> {
  await makeRootfs(join(dir, 'root.tar'), FULL_PACKAGES, EXCLUDED_PATHS, 'minbase');
  await copyNode(join(dir, 'node'));
  const lines = ['FROM scratch', 'ADD root.tar /', 'COPY node /usr/local/bin/node'];
  writeFileSync(join(dir, 'Dockerfile'), `${lines.join('\n')}\n`);
  await buildImage(engine, dir, { tag });
}
