import { join } from 'node:path';
import { ANSWER_BYTES, REQUEST_BYTES } from './tokens.js';

/**
 * Where the FIFOs of a data file are [0038]. Requests and confirmations of confirmations have one reader, the helper,
 * and go through one FIFO each. Receipts and confirmations have as many readers as there are workers, so each worker
 * slot has its own: a shared one would hand a worker's confirmation to whoever reads first.
 */
export const fifoPlaces = (directory: string) => ({
  request: join(directory, 'request.fifo'),
  confconf: join(directory, 'confconf.fifo'),
  receipt: (slot: number) => join(directory, `receipt.${slot}.fifo`),
  confirm: (slot: number) => join(directory, `confirm.${slot}.fifo`),
});

/** A FIFO holds 64 KiB; reads take whole tokens. */
export const REQUEST_READ_BYTES = Math.floor(65_536 / REQUEST_BYTES) * REQUEST_BYTES;
export const ANSWER_READ_BYTES = Math.floor(65_536 / ANSWER_BYTES) * ANSWER_BYTES;
