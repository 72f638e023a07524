import { lstatSync, readdirSync } from 'node:fs';
import { join, posix } from 'node:path';
import { KitError, messageOf } from '../errors.js';

/**
 * Checks that a folder of evidence has only regular files and folders, and none of them by a link. Evidence comes from
 * strangers, and `verify` prints the digest of every file: a link would let it read a file that only this user may
 * read, and a FIFO would block it.
 * @param dir the folder of the certificate.
 * @param name name of the folder of the evidence in it. A folder that is missing is left to the caller.
 * @throws KitError bad-history (exit code 2) that names the entry and what it is.
 */
export function requireRegularFiles(dir: string, name: string): void {
  const visit = (path: string) => {
    const stats = lstatSync(join(dir, path), { throwIfNoEntry: false });
    if (stats === undefined || stats.isFile()) return;
    if (!stats.isDirectory())
      throw wrong(path, stats.isSymbolicLink() ? 'is a symbolic link' : 'is a pipe, a socket or a device');
    for (const entry of readdirSync(join(dir, path))) visit(posix.join(path, entry));
  };
  try {
    visit(name);
  } catch (error) {
    if (error instanceof KitError) throw error;
    throw new KitError('bad-history', `${name}: expected a folder to read: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/**
 * Checks a path that evidence names, relative to one of its folders.
 * @throws KitError bad-history when it leads out of the folder.
 */
export function requireInside(folder: string, path: string): void {
  const normal = posix.normalize(path);
  if (posix.isAbsolute(normal) || normal === '..' || normal.startsWith('../'))
    throw new KitError('bad-history', `${folder}: names ${path}, expected a file in this folder`);
}

function wrong(path: string, what: string): KitError {
  return new KitError('bad-history', `${path}: ${what}, expected a regular file`);
}
