import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';

/**
 * The bytes of a file that somebody has named. A pipe or a device, which may never come to an end, is not waited for: while
 * it is read no Ctrl-C is either.
 * @param maxBytes so large it may be.
 * @throws Error in words that follow `expected …:`
 */
export function readRegularFile(path: string, maxBytes: number): Buffer {
  // Without O_NONBLOCK a pipe is opened when somebody writes to it, if ever.
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
