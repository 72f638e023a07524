import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * Returns the folder of package.json. Files that are not compiled and other programs of the package are found
 * from there.
 */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}

/** Compiled files that the npm package does not contain. */
const NOT_IN_PACKAGE = /\.test\.js$|(?:^|\/)(?:fixtures|bench)\//;

/** Returns the version of the kit. */
export function kitVersion(): string {
  const { version } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as {
    version: string;
  };
  return version;
}

/**
 * Returns the SHA-256 (hex) of the names and digests of the files of the kit's compiled program, without tests and
 * benchmarks. Two builds of the same sources have the same digest, in a checkout and as an installed package.
 */
export function kitDigest(): string {
  const root = join(packageRoot(), 'dist');
  const names = readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.js') && !NOT_IN_PACKAGE.test(name))
    .sort();
  const lines = names.map((name) => {
    return `${createHash('sha256')
      .update(readFileSync(join(root, name)))
      .digest('hex')}  ${name}\n`;
  });
  return createHash('sha256').update(lines.join('')).digest('hex');
}
