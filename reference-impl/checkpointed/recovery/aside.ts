import { join } from 'node:path';
import { syncDirectory } from '../../common/platform/directory.js';
import type { Kernel } from '../../common/platform/kernel.js';
import { writeSynced } from '../files.js';

/** Damaged bytes that a recovery could not read. */
export interface AsidePart {
  /** Name of its file. The same part has the same name in every recovery. */
  name: string;
  /** Description, one line. */
  what: string;
  bytes: Buffer;
  /** False for the last records of the log, which may never have been confirmed. */
  isConfirmed: boolean;
}

/** Ends the line in front of the bytes. */
const LINE_END = '\n';

/**
 * Writes each damaged part into a file of its own, for an operator. The files are synced before the recovery makes the
 * checkpoint after which the damaged places may be overwritten.
 */
export function keepAside(directory: string, parts: readonly AsidePart[], kernel: Kernel): void {
  if (parts.length === 0) return;
  for (const { name, what, bytes } of parts) {
    writeSynced(kernel, join(directory, name), Buffer.concat([Buffer.from(`${what}${LINE_END}`), bytes]));
    kernel.log(`kept aside: ${what}`);
  }
  syncDirectory(directory, kernel);
}

/** Returns the number of parts that recoveries have kept aside. */
export const countAside = (directory: string, kernel: Kernel): number =>
  kernel.exists(directory) ? kernel.list(directory).length : 0;
