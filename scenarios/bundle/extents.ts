import {
  closeSync,
  fchmodSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { KitError } from '../../conformance/errors.js';
import { beyond, limit } from '../../conformance/limits.js';

/**
 * Format of a disk image, or of another file that is mostly zeros, in a bundle, without its zeros:
 *
 *     8 bytes  "PPEXTENT", u64 size of the image in bytes
 *     then for each run of blocks that are not all zero: u64 offset, u64 length, the bytes
 *
 * Numbers are little-endian. Offsets are multiples of 4096, and so are lengths, except at the end of the
 * image.
 */

/** End of the name of a file in a bundle that has this format. */
export const EXTENTS_SUFFIX = '.extents';
/** First bytes of a disk image in a bundle. */
const MAGIC = Buffer.from('PPEXTENT');
const HEAD_BYTES = 16;
const BLOCK_BYTES = 4096;
const CHUNK_BYTES = 4 << 20;
const PERMISSIONS = 0o777;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

/** Writes `image` to the new file `file` without its zeros, with the same permissions. */
export async function packImage(image: string, file: string): Promise<void> {
  const to = openSync(file, 'wx', 0o600);
  try {
    const { size, mode } = statSync(image);
    writeSync(to, encodeHead(MAGIC.readBigUInt64LE(0), BigInt(size)));
    await eachExtent(image, (offset, bytes) => {
      writeSync(to, encodeHead(BigInt(offset), BigInt(bytes.length)));
      writeSync(to, bytes);
    });
    fchmodSync(to, mode & PERMISSIONS);
  } finally {
    closeSync(to);
  }
}

/** Returns the size of the file that `packImage` makes, in bytes. */
export async function extentsSize(image: string): Promise<number> {
  let sizeBytes = HEAD_BYTES;
  await eachExtent(image, (_offset, bytes) => {
    sizeBytes += HEAD_BYTES + bytes.length;
  });
  return sizeBytes;
}

/**
 * Calls `take` with each run of blocks that are not all zero. The bytes are valid until it returns. An image has gigabytes:
 * other work of this process goes on while they are read.
 */
async function eachExtent(image: string, take: (offset: number, bytes: Buffer) => void): Promise<void> {
  const from = await open(image, 'r');
  try {
    const { size: sizeBytes } = await from.stat();
    const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, sizeBytes));
    for (let start = 0; start < sizeBytes; start += CHUNK_BYTES) {
      const { bytesRead } = await from.read(chunk, 0, Math.min(CHUNK_BYTES, sizeBytes - start), start);
      for (const [begin, end] of nonZeroRuns(chunk.subarray(0, bytesRead)))
        take(start + begin, chunk.subarray(begin, end));
    }
  } finally {
    await from.close();
  }
}

/**
 * Restores an image, with holes where it has zeros, and with the permissions of `file`.
 * @throws KitError bad-bundle when the file is not of this format.
 */
export function unpackImage(file: string, image: string): void {
  const invalid = (what: string) =>
    new KitError('bad-bundle', `${file}: ${what}, expected the extents of an image`);
  const fileBytes = statSync(file).size;
  const [from, to] = [openSync(file, 'r'), openSync(image, 'w')];
  try {
    const head = Buffer.alloc(HEAD_BYTES);
    const chunk = Buffer.alloc(CHUNK_BYTES);
    if (readSync(from, head, 0, HEAD_BYTES, 0) < HEAD_BYTES || !head.subarray(0, 8).equals(MAGIC))
      throw invalid('its mark is missing');
    const sizeBytes = Number(head.readBigUInt64LE(8));
    if (sizeBytes > limit('image-bytes')) throw invalid(`its image has ${beyond('image-bytes', 'bytes')}`);
    ftruncateSync(to, sizeBytes);
    for (let at = HEAD_BYTES; at < fileBytes; ) {
      readSync(from, head, 0, HEAD_BYTES, at);
      const [offset, length] = [Number(head.readBigUInt64LE(0)), Number(head.readBigUInt64LE(8))];
      at += HEAD_BYTES;
      const fits =
        length > 0 && length <= CHUNK_BYTES && offset + length <= sizeBytes && at + length <= fileBytes;
      if (!fits) throw invalid(`the extent at byte ${at - HEAD_BYTES} cannot be`);
      readSync(from, chunk, 0, length, at);
      writeSync(to, chunk, 0, length, offset);
      at += length;
    }
    fchmodSync(to, fstatSync(from).mode & PERMISSIONS);
  } finally {
    closeSync(from);
    closeSync(to);
  }
}

function encodeHead(first: bigint, second: bigint): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeBigUInt64LE(first, 0);
  head.writeBigUInt64LE(second, 8);
  return head;
}

/** Returns begin and end of each run of blocks that contain a byte other than zero. */
function nonZeroRuns(bytes: Buffer): [number, number][] {
  const runs: [number, number][] = [];
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const end = Math.min(at + BLOCK_BYTES, bytes.length);
    if (bytes.compare(ZEROS, 0, end - at, at, end) === 0) continue;
    const last = runs.at(-1);
    if (last?.[1] === at) last[1] = end;
    else runs.push([at, end]);
  }
  return runs;
}
