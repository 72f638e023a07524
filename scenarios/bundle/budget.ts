import { beyond, limit } from '../../conformance/limits.js';

/** Unpacked size that a bundle may have whatever its packed size is: logs and histories may be very regular. */
export const RATIO_FREE_BYTES = 256 << 20;
/** Bytes of the header of an entry. */
const HEADER_BYTES = 512;

/**
 * Returns the unpacked size that a bundle may have, in bytes.
 * @param packedBytes size of the bundle.
 */
export function ratioBytes(packedBytes: number): number {
  return Math.max(RATIO_FREE_BYTES, packedBytes * limit('bundle-ratio'));
}

/**
 * What the files of a bundle may take. The writer asks the same questions as the reader, so that the kit writes no bundle
 * that it refuses.
 */
export class BundleBudget {
  readonly #ratioBytes: number;
  #entries = 0;
  #bytes = 0;

  /** @param maxRatioBytes result of `ratioBytes`; infinite where the packed size does not matter. */
  constructor(maxRatioBytes: number) {
    this.#ratioBytes = maxRatioBytes;
  }

  /** Unpacked size of the files that were taken, in bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Takes a file into account if it fits.
   * @returns why it does not fit, after `cannot be unpacked: `; undefined when it fits.
   */
  take(name: string, sizeBytes: number): string | undefined {
    const entries = this.#entries + 1;
    const bytes = this.#bytes + HEADER_BYTES + sizeBytes;
    if (entries > limit('bundle-entries')) return `it has ${beyond('bundle-entries', 'files')}`;
    if (sizeBytes > limit('bundle-entry-bytes'))
      return `${name} has ${beyond('bundle-entry-bytes', 'bytes')}`;
    if (bytes > limit('bundle-bytes')) return `it unpacks to ${beyond('bundle-bytes', 'bytes')}`;
    if (bytes > this.#ratioBytes) return `it unpacks to ${beyond('bundle-ratio', 'times its size')}`;
    this.#entries = entries;
    this.#bytes = bytes;
    return undefined;
  }
}
