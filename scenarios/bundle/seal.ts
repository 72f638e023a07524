import { createHash } from 'node:crypto';
import { accessSync, appendFileSync, closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import { KitError, messageOf } from '../../conformance/errors.js';

/**
 * Format of a bundle's seal: a second, empty member at the end of the gzip file. Its comment is the SHA-256
 * of every byte before it. Other programs unpack such a file like any other. The seal reveals a changed byte
 * anywhere, also in the gzip headers, which gzip's own checksums do not cover.
 *
 *     1f 8b 08, flags 10 (comment), time 0 (4 bytes), 00 ff    header of the member
 *     "sha256:" and 64 hexadecimal digits, 00                  the comment
 *     03 00, CRC 0 and length 0 (4 bytes each)                 the empty data, compressed
 */

/** Header of the seal, up to its comment. */
const SEAL_HEAD = Buffer.from([0x1f, 0x8b, 0x08, 0x10, 0, 0, 0, 0, 0, 0xff]);
const SEAL_TAIL = Buffer.from([0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
const DIGEST_PREFIX = 'sha256:';
const SEAL_BYTES = SEAL_HEAD.length + DIGEST_PREFIX.length + 64 + SEAL_TAIL.length;
const CHUNK_BYTES = 1 << 20;

/** Appends the seal to a gzip file. */
export function seal(file: string): void {
  appendFileSync(file, encodeSeal(digestOf(file, statSync(file).size)));
}

/**
 * Checks the seal of a bundle.
 * @throws KitError bad-bundle (exit code 2) when the file has no seal, or when the seal does not match its
 * bytes.
 */
export function checkSeal(file: string): void {
  const sizeBytes = readableSize(file);
  const [start, end] = [Buffer.alloc(3), Buffer.alloc(SEAL_BYTES)];
  if (sizeBytes > SEAL_BYTES) {
    const fd = openSync(file, 'r');
    try {
      readSync(fd, start, 0, start.length, 0);
      readSync(fd, end, 0, SEAL_BYTES, sizeBytes - SEAL_BYTES);
    } finally {
      closeSync(fd);
    }
  }
  if (!start.equals(SEAL_HEAD.subarray(0, 3))) {
    throw new KitError('bad-bundle', `${file}: expected a bundle of plugpull, which is a .tar.gz file`);
  }
  const sealedDigest = end.toString(
    'latin1',
    SEAL_HEAD.length + DIGEST_PREFIX.length,
    SEAL_HEAD.length + DIGEST_PREFIX.length + 64,
  );
  if (!/^[0-9a-f]{64}$/.test(sealedDigest) || !end.equals(encodeSeal(sealedDigest))) {
    throw new KitError(
      'bad-bundle',
      `${file}: expected the seal of a bundle at its end: it was cut off or changed, or is no bundle`,
    );
  }
  const actualDigest = digestOf(file, sizeBytes - SEAL_BYTES);
  if (actualDigest === sealedDigest) return;
  throw new KitError(
    'bad-bundle',
    `${file}: was changed since it was made: expected SHA-256 ${sealedDigest}, found ${actualDigest}`,
  );
}

function encodeSeal(digest: string): Buffer {
  return Buffer.concat([SEAL_HEAD, Buffer.from(DIGEST_PREFIX + digest), SEAL_TAIL]);
}

function readableSize(file: string): number {
  let why = 'there is no such file';
  try {
    const stat = statSync(file, { throwIfNoEntry: false });
    if (stat?.isFile()) {
      accessSync(file, constants.R_OK);
      return stat.size;
    }
  } catch (error) {
    why = messageOf(error);
  }
  throw new KitError('bad-bundle', `${file}: expected a bundle, ${why}`);
}

function digestOf(file: string, lengthBytes: number): string {
  const hash = createHash('sha256');
  const chunk = Buffer.alloc(CHUNK_BYTES);
  const fd = openSync(file, 'r');
  try {
    for (let at = 0; at < lengthBytes; at += CHUNK_BYTES) {
      const length = readSync(fd, chunk, 0, Math.min(CHUNK_BYTES, lengthBytes - at), at);
      hash.update(chunk.subarray(0, length));
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}
