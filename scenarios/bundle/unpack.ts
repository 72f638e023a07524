import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, statSync } from 'node:fs';
import * as tar from 'tar';
import { KitError, messageOf } from '../../conformance/errors.js';
import { beyond, limit } from '../../conformance/limits.js';
import { type ArchiveEntry, limitEntry } from './entry-modes.js';

/** Unpacked size that a bundle may have whatever its packed size is: the data of a target may be mostly zeros. */
const RATIO_FREE_BYTES = 256 << 20;
/** Bytes of the header of an entry. */
const HEADER_BYTES = 512;

/**
 * Unpacks a bundle. It adds up what the headers of the entries announce, and stops before the entry that exceeds a
 * limit is written.
 * @returns the SHA-256 of the very bytes that were unpacked: the file could be replaced between two reads.
 * @throws KitError bad-bundle (exit code 2) when it cannot be unpacked or unpacks to more than the limits allow;
 * kit-failed when the disk is full.
 */
export async function unpackBundle(file: string, dir: string): Promise<string> {
  const budget = new UnpackBudget(statSync(file).size);
  const unpack = new tar.Unpack({
    cwd: dir,
    strict: true,
    preserveOwner: false,
    // `UnpackBudget` has its own limit, which the user can raise.
    maxDecompressionRatio: Number.POSITIVE_INFINITY,
    filter: (path, entry) => budget.accepts(path, entry as ArchiveEntry & { size: number }),
  });
  const hash = createHash('sha256');
  const closed = once(unpack, 'close');
  // The loop below reports an error of the archive, too.
  closed.catch(() => {});
  try {
    for await (const chunk of createReadStream(file)) {
      hash.update(chunk as Buffer);
      const wantsMore = unpack.write(chunk as Buffer);
      if (budget.exceeded !== undefined) throw new Error(budget.exceeded);
      if (!wantsMore) await Promise.race([once(unpack, 'drain'), closed]);
    }
    unpack.end();
    await closed;
    // The headers at the end of the file are read after its last chunk was taken.
    if (budget.exceeded !== undefined) throw new Error(budget.exceeded);
    return hash.digest('hex');
  } catch (error) {
    const isFull = isDiskFull(error);
    const what = isFull ? `${dir}: no room for what is in ${file}` : `${file}: cannot be unpacked`;
    throw new KitError(isFull ? 'kit-failed' : 'bad-bundle', `${what}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Checks the entries of a bundle, and knows what they may still take. */
class UnpackBudget {
  readonly #ratioBytes: number;
  #entries = 0;
  #bytes = 0;
  /** Reason why an entry was not accepted; undefined as long as all were. */
  exceeded: string | undefined;

  constructor(packedBytes: number) {
    this.#ratioBytes = Math.max(RATIO_FREE_BYTES, packedBytes * limit('bundle-ratio'));
  }

  accepts(path: string, entry: ArchiveEntry & { size: number }): boolean {
    const { size: sizeBytes } = entry;
    this.exceeded ??= limitEntry(path, entry);
    this.#entries += 1;
    this.#bytes += HEADER_BYTES + sizeBytes;
    if (this.#entries > limit('bundle-entries'))
      this.exceeded ??= `it has ${beyond('bundle-entries', 'files')}`;
    if (sizeBytes > limit('bundle-entry-bytes'))
      this.exceeded ??= `${path} has ${beyond('bundle-entry-bytes', 'bytes')}`;
    if (this.#bytes > limit('bundle-bytes'))
      this.exceeded ??= `it unpacks to ${beyond('bundle-bytes', 'bytes')}`;
    if (this.#bytes > this.#ratioBytes)
      this.exceeded ??= `it unpacks to ${beyond('bundle-ratio', 'times its size')}`;
    return this.exceeded === undefined;
  }
}

function isDiskFull(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT');
}
