import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, statSync } from 'node:fs';
import * as tar from 'tar';
import { KitError, messageOf } from '../../conformance/errors.js';
import { BundleBudget, ratioBytes } from './budget.js';
import { type ArchiveEntry, limitEntry } from './entry-modes.js';
import type { Origin } from './manifest.js';

/**
 * Unpacks a bundle. It adds up what the headers of the entries announce, and stops before the entry that exceeds a
 * limit is written.
 * @param origin `foreign`: the limit `bundle-ratio` holds, because a small file of a stranger must not fill the disk.
 * @returns the SHA-256 of the very bytes that were unpacked: the file could be replaced between two reads.
 * @throws KitError bad-bundle (exit code 2) when it cannot be unpacked or unpacks to more than the limits allow;
 * kit-failed when the disk is full.
 */
export async function unpackBundle(file: string, dir: string, origin: Origin): Promise<string> {
  const maxBytes = origin === 'foreign' ? ratioBytes(statSync(file).size) : Number.POSITIVE_INFINITY;
  const check = new EntryCheck(new BundleBudget(maxBytes));
  const unpack = new tar.Unpack({
    cwd: dir,
    strict: true,
    preserveOwner: false,
    // `BundleBudget` has its own limit, which the user can raise.
    maxDecompressionRatio: Number.POSITIVE_INFINITY,
    filter: (path, entry) => check.accepts(path, entry as ArchiveEntry & { size: number }),
  });
  const hash = createHash('sha256');
  const closed = once(unpack, 'close');
  // The loop below reports an error of the archive, too.
  closed.catch(() => {});
  try {
    for await (const chunk of createReadStream(file)) {
      hash.update(chunk as Buffer);
      const wantsMore = unpack.write(chunk as Buffer);
      if (check.exceeded !== undefined) throw new Error(check.exceeded);
      if (!wantsMore) await Promise.race([once(unpack, 'drain'), closed]);
    }
    unpack.end();
    await closed;
    // The headers at the end of the file are read after its last chunk was taken.
    if (check.exceeded !== undefined) throw new Error(check.exceeded);
    return hash.digest('hex');
  } catch (error) {
    const isFull = isDiskFull(error);
    const what = isFull ? `${dir}: no room for what is in ${file}` : `${file}: cannot be unpacked`;
    throw new KitError(isFull ? 'kit-failed' : 'bad-bundle', `${what}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Checks the entries of a bundle, and what they may still take. */
class EntryCheck {
  readonly #budget: BundleBudget;
  /** Reason why an entry was not accepted; undefined as long as all were. */
  exceeded: string | undefined;

  constructor(budget: BundleBudget) {
    this.#budget = budget;
  }

  accepts(path: string, entry: ArchiveEntry & { size: number }): boolean {
    this.exceeded ??= limitEntry(path, entry) ?? this.#budget.take(path, entry.size);
    return this.exceeded === undefined;
  }
}

function isDiskFull(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT');
}
