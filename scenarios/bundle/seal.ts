import { createHash } from 'node:crypto';
import { accessSync, appendFileSync, closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import { KitError, messageOf } from '../../conformance/errors.js';

/**
 * The seal of a bundle: a second, empty member at the end of the gzip file whose comment is the SHA-256 of every byte
 * before it. Other programs unpack such a file as any other; a changed byte anywhere, also in the heads of the
 * compression that its own checksums leave out, is noticed.
 *
 *     1f 8b 08, flags 10 (comment), time 0 (4 bytes), 00 ff    head of the member
 *     "sha256:" and 64 hexadecimal digits, 00                  the comment
 *     03 00, CRC 0 and length 0 (4 bytes each)                 nothing, compressed
 */
const HEAD = Buffer.from([0x1f, 0x8b, 0x08, 0x10, 0, 0, 0, 0, 0, 0xff]);
const TAIL = Buffer.from([0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
const WORD = 'sha256:';
const SEAL_BYTES = HEAD.length + WORD.length + 64 + TAIL.length;
const CHUNK_BYTES = 1 << 20;

/** Appends the seal to a gzip file. */
export function seal(file: string): void {
  appendFileSync(file, sealWith(digestOf(file, statSync(file).size)));
}

/** @throws KitError bad-bundle (exit code 2) when the file has no seal, or not that of its bytes. */
export function checkSeal(file: string): void {
  const sizeBytes = sizeOf(file);
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
  if (!start.equals(HEAD.subarray(0, 3))) {
    throw new KitError('bad-bundle', `${file}: expected a bundle of plugpull, which is a .tar.gz file`);
  }
  const said = end.toString('latin1', HEAD.length + WORD.length, HEAD.length + WORD.length + 64);
  if (!/^[0-9a-f]{64}$/.test(said) || !end.equals(sealWith(said))) {
    throw new KitError(
      'bad-bundle',
      `${file}: expected the seal of a bundle at its end: it was cut off or changed, or is no bundle`,
    );
  }
  const found = digestOf(file, sizeBytes - SEAL_BYTES);
  if (found === said) return;
  throw new KitError(
    'bad-bundle',
    `${file}: was changed since it was made: expected SHA-256 ${said}, found ${found}`,
  );
}

function sealWith(digest: string): Buffer {
  return Buffer.concat([HEAD, Buffer.from(WORD + digest), TAIL]);
}

function sizeOf(file: string): number {
  let why = 'there is no such file';
  try {
    const found = statSync(file, { throwIfNoEntry: false });
    if (found?.isFile()) {
      accessSync(file, constants.R_OK);
      return found.size;
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
