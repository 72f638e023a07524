import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';

/**
 * Opens a file whose path the user gave. It rejects pipes and devices, which may never end: during a
 * synchronous read the kit would not react to Ctrl-C.
 * @returns the descriptor, which the caller closes.
 * @throws Error whose message completes `expected …: `.
 */
export function openRegularFile(path: string): number {
  // Open with O_NONBLOCK: otherwise the open of a pipe blocks until a process opens it for writing.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const stat = fstatSync(fd);
  if (stat.isFile()) return fd;
  closeSync(fd);
  throw new Error(stat.isDirectory() ? 'it is a directory' : 'it is a pipe or a device, and no file');
}

/**
 * Reads a file whose path the user gave.
 * @param maxBytes upper bound of the size of the file.
 * @throws Error whose message completes `expected …: `.
 */
export function readRegularFile(path: string, maxBytes: number): Buffer {
  const fd = openRegularFile(path);
  try {
    const { size } = fstatSync(fd);
    if (size > maxBytes) throw new Error(`it has ${size} bytes, more than ${maxBytes}`);
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}
