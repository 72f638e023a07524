import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Directory, in the directory of a round, with the messages that were delivered changed. */
export const CHANGED_DIR = 'changed';
/** Upper bound of the bytes that are saved in a round: a target may change every message. */
const MAX_SAVED_BYTES = 32 * 2 ** 20;

/** A message that was delivered with other bytes than it was submitted with. */
export interface ChangedDelivery {
  id: string;
  /** Number of the delivery in the run. */
  sequence: number;
  submitted: Buffer;
  delivered: Buffer;
}

/**
 * Makes a function that saves both versions of a changed message as `ID.submitted` and `ID.delivered-SEQUENCE`, so
 * that a person can compare them. It leaves out what does not fit into MAX_SAVED_BYTES.
 * @param roundDir directory of the round's evidence.
 */
export function saveChangedMessages(roundDir: string): (change: ChangedDelivery) => void {
  let savedBytes = 0;
  return ({ id, sequence, submitted, delivered }) => {
    const sizeBytes = submitted.length + delivered.length;
    if (savedBytes + sizeBytes > MAX_SAVED_BYTES) return;
    savedBytes += sizeBytes;
    const dir = join(roundDir, CHANGED_DIR);
    mkdirSync(dir, { recursive: true });
    // An id consists of letters, digits, dots and dashes.
    writeFileSync(join(dir, `${id}.submitted`), submitted);
    writeFileSync(join(dir, `${id}.delivered-${sequence}`), delivered);
  };
}
