import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { codename, FAULT_PACKAGES, makeRootfs, withEmptyFolder } from './base.js';
import { buildImage, hasImage } from './build-image.js';
import { IMAGE_LABEL, type ImageOptions } from './images.js';

/** Recipe of an image. */
interface Recipe {
  packages: readonly string[];
  /** Users that the scripts of the packages would have made. Each has a group of the same name and number. */
  users: Readonly<Record<string, number>>;
}

/** Recipes of the images of real systems, by the names that target files use. */
const RECIPES: Readonly<Record<string, Recipe>> = {
  'plugpull/beanstalkd': { packages: ['beanstalkd'], users: {} },
  'plugpull/redis': { packages: ['redis-server'], users: {} },
  'plugpull/postgres': { packages: ['postgresql'], users: { postgres: 101 } },
  // Postfix's start script uses find and diff, and needs the unprivileged user nobody.
  'plugpull/postfix': {
    packages: ['postfix', 'findutils', 'diffutils'],
    users: { postfix: 101, postdrop: 102, nobody: 65534 },
  },
  'plugpull/opensmtpd': {
    packages: ['opensmtpd'],
    users: { opensmtpd: 101, opensmtpq: 102, nobody: 65534 },
  },
  'plugpull/mosquitto': { packages: ['mosquitto'], users: {} },
  'plugpull/nats': { packages: ['nats-server'], users: {} },
  'plugpull/rabbitmq': { packages: ['rabbitmq-server'], users: {} },
  // For the examples in Python.
  'plugpull/python': { packages: ['python3'], users: {} },
};

/** Packages for the scripts beside the target files, and for the faults inside a container. */
const COMMON_PACKAGES = ['base-files', 'dash', 'coreutils', 'util-linux', 'sed', 'grep', ...FAULT_PACKAGES];
const EXCLUDED_PATHS = ['/usr/share/doc/*', '/usr/share/man/*', '/usr/share/locale/*', '/usr/share/perl/*'];

/** Returns whether an image is one of a real system that this file builds from Debian packages. */
export function isSystemImage(name: string): boolean {
  return name in RECIPES;
}

/**
 * Returns the image of a real system, and builds it if there is none for this recipe.
 * @param name name for which `isSystemImage` returns true.
 * @returns the name with the tag.
 */
export async function systemImage(
  name: string,
  { engine, workDir, say }: Pick<ImageOptions, 'engine' | 'workDir' | 'say'>,
): Promise<string> {
  const recipe = RECIPES[name];
  if (recipe === undefined) throw new Error(`${name}: no such recipe`);
  const parts = [recipe, COMMON_PACKAGES, EXCLUDED_PATHS, codename(), process.arch];
  const key = createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);
  const tag = `${name}:${key}`;
  if (await hasImage(engine, tag)) return tag;
  const startMs = performance.now();
  mkdirSync(workDir, { recursive: true });
  const dir = mkdtempSync(join(workDir, 'system-'));
  try {
    await withEmptyFolder(join(dir, 'context'), async () => {
      const context = join(dir, 'context');
      await makeRootfs(join(context, 'root.tar'), [...COMMON_PACKAGES, ...recipe.packages], EXCLUDED_PATHS);
      const users = Object.entries({ root: 0, ...recipe.users });
      const lines = (format: (user: string, id: number) => string) =>
        users.map(([user, id]) => `${format(user, id)}\n`).join('');
      writeFileSync(
        join(context, 'passwd'),
        lines((user, id) => `${user}:x:${id}:${id}::/tmp:/bin/sh`),
      );
      writeFileSync(
        join(context, 'group'),
        lines((user, id) => `${user}:x:${id}:`),
      );
      writeFileSync(
        join(context, 'Dockerfile'),
        'FROM scratch\nADD root.tar /\nCOPY passwd group /etc/\nENV PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C\n',
      );
      await buildImage(engine, context, { tag, labels: { [IMAGE_LABEL]: name.split('/')[1] ?? name } });
    });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  say(`built ${tag} in ${Math.round((performance.now() - startMs) / 1000)} s`);
  return tag;
}
