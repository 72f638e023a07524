import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';

/**
 * Reads a file whose path the user gave. It rejects pipes and devices, which may never end: during a
 * synchronous read the kit would not react to Ctrl-C.
 * @param maxBytes upper bound of the size of the file.
 * @throws Error whose message completes `expected …: `.
 */
export function readRegularFile(path: string, maxBytes: number): Buffer {
  // Open with O_NONBLOCK: otherwise the open of a pipe blocks until a process opens it for writing.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stat = fstatSync(fd);
    if (stat.isDirectory()) throw new Error('it is a directory');
    if (!stat.isFile()) throw new Error('it is a pipe or a device, and no file');
    if (stat.size > maxBytes) throw new Error(`it has ${stat.size} bytes, more than ${maxBytes}`);
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}
