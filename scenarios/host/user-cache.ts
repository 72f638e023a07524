import { lstatSync, mkdirSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import { makeDirectories } from './directories.js';
import { whyNotOwnDirectory } from './own-files.js';
import { homeDirectory } from './user-state.js';

/**
 * Returns the user cache directory. The kit keeps in it what takes minutes to make and can be made again, such as
 * the image of the lab VM. All checkouts of a user share it.
 */
export function userCacheDirectory(): string {
  const { XDG_CACHE_HOME: base } = process.env;
  // The specification of the XDG directories ignores relative paths.
  const parent = base !== undefined && isAbsolute(base) ? base : join(homeDirectory(), '.cache');
  return join(parent, 'plugpull');
}

/**
 * Returns the path of a folder of the user cache directory. It need not exist.
 * @throws KitError bad-usage when it exists and another user could write to it: the kit boots as this user what is
 *   in the folder.
 */
export function userCacheFolder(name: string): string {
  const folder = join(userCacheDirectory(), name);
  for (const path of [userCacheDirectory(), folder]) {
    const why = whyNotOwnDirectory(path);
    if (why === 'missing') return folder;
    if (why === undefined) continue;
    throw new KitError(
      'bad-usage',
      `${path} is not believed: ${why}; expected a directory of this user alone: ${remedyFor(path)}`,
    );
  }
  return folder;
}

/**
 * Makes a folder of the user cache directory, for this user alone, and returns its path.
 * @throws KitError bad-usage when it cannot be made, or is not this user's own.
 */
export function makeUserCacheFolder(name: string): string {
  const cache = userCacheDirectory();
  try {
    makeDirectories(dirname(cache));
    for (const path of [cache, join(cache, name)])
      if (lstatSync(path, { throwIfNoEntry: false }) === undefined) mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST'))
      throw new KitError(
        'bad-usage',
        `${join(cache, name)} cannot be made: ${messageOf(error)}; expected a user cache directory that can be written to (XDG_CACHE_HOME names another one)`,
        { cause: error },
      );
  }
  return userCacheFolder(name);
}

function remedyFor(path: string): string {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  return stats?.isDirectory() && stats.uid === process.geteuid?.()
    ? `chmod 700 ${path}`
    : 'remove it, or set XDG_CACHE_HOME';
}
