import { closeSync, constants, fstatSync, lstatSync, openSync, readFileSync, type Stats } from 'node:fs';

/** Size above which a file of the kit's own records is not read, in bytes. A long run writes some hundred kB. */
const MAX_BYTES = 64 * 2 ** 20;

/**
 * Returns why a file or directory is not believed to be written by this user alone; undefined when it is. What
 * such a file says is removed as root in CI, so a file that another user, or an archive, could have put there
 * must not count.
 */
export function whyNotOwn(stats: Stats, kind: 'file' | 'directory'): string | undefined {
  const isKind = kind === 'file' ? stats.isFile() : stats.isDirectory();
  if (!isKind) return `it is no ${kind}`;
  const uid = process.geteuid?.();
  if (uid !== undefined && stats.uid !== uid) return `it belongs to user ${stats.uid}, expected ${uid}`;
  if ((stats.mode & 0o077) !== 0)
    return `its mode is ${(stats.mode & 0o7777).toString(8)}, expected no right for other users`;
  if (kind === 'file' && stats.nlink !== 1) return 'it has more than one name';
  return undefined;
}

/** Returns why a directory is not this user's own; `missing` when it does not exist. A link is not followed. */
export function whyNotOwnDirectory(path: string): string | undefined {
  try {
    return whyNotOwn(lstatSync(path), 'directory');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return 'missing';
    throw error;
  }
}

/**
 * Reads a file that only this user may write and read. It checks the opened file, so that the file cannot be
 * exchanged between the check and the read, and it does not block on a FIFO.
 * @throws Error with the reason when the file is not this user's own, or the error of the system call.
 */
export function readOwnFile(path: string): string {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const fd = openSync(path, flags);
  try {
    const stats = fstatSync(fd);
    const why = whyNotOwn(stats, 'file');
    if (why !== undefined) throw new Error(why);
    if (stats.size > MAX_BYTES) throw new Error(`it has ${stats.size} bytes, expected at most ${MAX_BYTES}`);
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}
