import { constants } from 'node:fs';
import { assert } from '../common/platform/errors.js';
import { FILE_MODE, type Kernel } from '../common/platform/kernel.js';

/** Size of a page of the disk in bytes. */
export const PAGE_BYTES = 4096;

/** Rounds up to whole units. */
export const roundUp = (value: number, unit: number): number => Math.ceil(value / unit) * unit;

/** Writes all of `bytes` at `position` of a file. A single write(2) may write less. */
export function writeWhole(kernel: Pick<Kernel, 'write'>, fd: number, bytes: Buffer, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    const written = kernel.write(fd, bytes, done, bytes.length - done, position + done);
    assert(written > 0, 'a write of some bytes writes some');
    done += written;
  }
}

/** Writes a whole file anew, and syncs it. The caller syncs its name. @throws the errors of node:fs */
export function writeSynced(kernel: Kernel, path: string, bytes: Buffer): void {
  const fd = kernel.open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, FILE_MODE);
  try {
    writeWhole(kernel, fd, bytes, 0);
    kernel.fsync(fd);
  } finally {
    kernel.close(fd);
  }
}

/** Reads a whole file. @throws the errors of node:fs, such as ENOENT. */
export function readWhole(kernel: Kernel, path: string): Buffer {
  const fd = kernel.open(path, 'r');
  try {
    return readAt(kernel, fd, 0, kernel.sizeBytes(fd));
  } finally {
    kernel.close(fd);
  }
}

/** Reads `length` bytes at `position` of a file, or those that it has. */
export function readAt(kernel: Kernel, fd: number, position: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let done = 0; done < length; ) {
    const read = kernel.read(fd, bytes, done, length - done, position + done);
    if (read === 0) return bytes.subarray(0, done);
    done += read;
  }
  return bytes;
}

/** Writes a whole number below 2^53 as 8 bytes, little-endian. */
export function putWide(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value >>> 0, at);
  bytes.writeUInt32LE(highWord(value), at + 4);
}

/** Returns bits 32 to 52 of a whole number below 2^53. The remainder and the floor of a division would take longer. */
export const highWord = (value: number): number => (value - (value >>> 0)) / 2 ** 32;

/** Reads 8 bytes, little-endian, as a number. Damaged bytes may give one above 2^53. */
export const getWide = (bytes: Buffer, at: number): number =>
  bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;

/** Returns a number as 16 hexadecimal digits, for names of files that sort by number. */
export const hex16 = (value: number): string => value.toString(16).padStart(16, '0');
