import { QueueError } from '../platform/errors.js';
import type { LockFile } from '../platform/locks.js';

/** Others who look, and workers that restore, may take long; one that is stopped takes for ever. */
const PATIENCE_MS = 60_000;
/** A restore reads the data file once: at less than 16 MiB a second it does not go on. */
const SLOWEST_BYTES_PER_MS = (16 * 2 ** 20) / 1000;

/**
 * Takes a byte of a pair's lock file (blocking the thread), as soon as nobody else has it.
 * @param dataBytes size of the data file, which whoever holds the byte may have to read.
 * @throws QueueError `mutex-held` when another process holds it for a minute and the time that such a file takes.
 */
export function waitFor(locks: LockFile, byte: number, directory: string, dataBytes: number): void {
  const limitMs = PATIENCE_MS + Math.ceil(dataBytes / SLOWEST_BYTES_PER_MS);
  if (locks.lockWithin(byte, limitMs)) return;
  throw new QueueError(
    'mutex-held',
    `another process has held ${directory} for ${limitMs} ms: is it stopped?`,
  );
}
