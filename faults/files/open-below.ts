import { closeSync, constants, fstatSync, openSync, readlinkSync, realpathSync, unlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** Error for a file of a target that is gone, or that something else has replaced since it was listed. */
export class ReplacedError extends Error {
  /** The code of a file that is gone: for its readers there is no difference. */
  readonly code = 'ENOENT';

  constructor(path: string, cause?: unknown) {
    super(`${path}: expected a regular file or its folder, it is gone or was replaced`, { cause });
  }
}

/**
 * Opens a regular file of a directory that a stranger's program may change at any moment. The kit runs as root: if the
 * program replaced the file or a folder by a link, the kit would read or damage a file of the host, and a FIFO would
 * block it. It opens only what is really a regular file below the directory.
 * @param directory the directory; it must not be a link itself.
 * @param file path of the file, relative to the directory.
 * @param flags O_RDONLY or O_RDWR of node:fs.
 * @returns the file descriptor.
 * @throws ReplacedError when there is no such regular file; the errors of node:fs.
 */
export function openBelow(directory: string, file: string, flags: number): number {
  return openAs(directory, file, flags, 'isFile');
}

/**
 * Removes a file of a directory under test. It follows no link, also not one in the place of a folder.
 * @throws ReplacedError when its folder is gone; the errors of node:fs.
 */
export function removeBelow(directory: string, file: string): void {
  const folder = openAs(directory, dirname(file), constants.O_RDONLY | constants.O_DIRECTORY, 'isDirectory');
  try {
    unlinkSync(join(descriptorPath(folder), basename(file)));
  } finally {
    closeSync(folder);
  }
}

function openAs(directory: string, file: string, flags: number, kind: 'isFile' | 'isDirectory'): number {
  const path = join(realpathSync(dirname(directory)), basename(directory), file);
  let fd: number;
  try {
    fd = openSync(path, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    // ELOOP: a link. ENXIO: a FIFO or a socket without a reader. ENOTDIR, EISDIR: a folder and a file changed places.
    if (['ENOENT', 'ELOOP', 'ENXIO', 'ENOTDIR', 'EISDIR'].includes(`${code}`))
      throw new ReplacedError(path, error);
    throw error;
  }
  try {
    // O_NOFOLLOW checks the last part of the path only. Compare with the path that the kernel reports, which has no link.
    if (fstatSync(fd)[kind]() && readlinkSync(descriptorPath(fd)) === path) return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  closeSync(fd);
  throw new ReplacedError(path);
}

/** Calls `use` with the descriptor of a file that `openBelow` opens, and closes it. */
export function withFileBelow<T>(directory: string, file: string, flags: number, use: (fd: number) => T): T {
  const fd = openBelow(directory, file, flags);
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

/** Returns a path of an open file, for calls of node:fs that take no descriptor. */
export function descriptorPath(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

/** Returns what `use` returns, or undefined when the file that it uses is gone. */
export function unlessGone<T>(use: () => T): T | undefined {
  try {
    return use();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
