import { closeSync, constants, fstatSync, openSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Reads a file whose path the user gave. It rejects pipes and devices, which may never end: during a
 * synchronous read the kit would not react to Ctrl-C.
 * @param maxBytes upper bound of the size of the file.
 * @throws Error whose message completes `expected …: `.
 */
export function readRegularFile(path: string, maxBytes: number): Buffer {
  return readOpen(openSync(path, READ_FLAGS), maxBytes);
}

/**
 * Reads a file of a directory that a stranger may have made, such as the evidence of a certificate. It does what
 * `readRegularFile` does, and follows no link: a link may lead to a file that only this user may read.
 * @param name path of the file, relative to `dir`.
 * @throws Error whose message completes `expected …: `.
 */
export function readFileBelow(dir: string, name: string, maxBytes: number): Buffer {
  const path = join(realpathSync(dir), name);
  let fd: number;
  try {
    fd = openSync(path, READ_FLAGS | constants.O_NOFOLLOW);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ELOOP')
      throw new Error('it is a symbolic link, and no file', { cause: error });
    throw error;
  }
  return readOpen(fd, maxBytes, path);
}

// O_NONBLOCK: otherwise the open of a pipe blocks until a process opens it for writing.
const READ_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK;

/** Reads an open file and closes it. @param path the path that it must have, without links; default: any. */
function readOpen(fd: number, maxBytes: number, path?: string): Buffer {
  try {
    const stat = fstatSync(fd);
    if (stat.isDirectory()) throw new Error('it is a directory');
    if (!stat.isFile()) throw new Error('it is a pipe or a device, and no file');
    // The kernel knows the path by which the file was reached in the end: O_NOFOLLOW looks at the last part only.
    if (path !== undefined && readlinkSync(`/proc/self/fd/${fd}`) !== path)
      throw new Error('a folder on its path is a symbolic link');
    if (stat.size > maxBytes) throw new Error(`it has ${stat.size} bytes, more than ${maxBytes}`);
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}
