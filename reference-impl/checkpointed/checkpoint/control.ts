import { crc32c } from '@node-rs/crc32';
import { assert, QueueError } from '../../common/platform/errors.js';
import type { Kernel } from '../../common/platform/kernel.js';
import { PAGE_BYTES, readWhole, roundUp, writeWhole } from '../files.js';
import type { QueueDefinition } from '../memory/memory-queue.js';

/**
 * The checkpoint control record: which checkpoint is in force. The file holds two copies, which are written in turn, so that
 * one of them is whole at any time. Copy n of checkpoint c has n = c mod 2. Each begins at n times 64 KiB:
 *
 *      0  8  "PPCCTRL1"
 *      8  4  length of the text
 *     12  4  CRC-32C of the text
 *     16     the record as JSON
 */
export interface ControlRecord {
  /** Number of the checkpoint, from 1. */
  checkpoint: number;
  /** Generation of the log that follows it. */
  generation: number;
  queues: ControlEntry[];
}

/** Entry of one queue in the control record. */
export interface ControlEntry {
  id: number;
  /** The slot file with the contents, 0 or 1. */
  slot: 0 | 1;
  /** Number of the checkpoint that wrote the slot. */
  checkpoint: number;
  /** Position from which the log is redone for this queue. */
  redo: number;
  /** The definition at the checkpoint. */
  definition: QueueDefinition;
}

/** Offsets of the bytes of the control file that are locked. They are behind all data. */
export const CONTROL_LOCK = {
  /** Held while a checkpoint is made. */
  checkpoint: 2 ** 30,
  /** Held by the server as long as it lives. */
  server: 2 ** 30 + 1,
} as const;

const MAGIC = 'PPCCTRL1';
const COPY_BYTES = 64 * 1024;
const HEADER_BYTES = 16;
/** Upper bound of the number of queues. Their entries fit into a copy, even with the longest names. */
export const MAX_QUEUES = 200;

/** Writes the copy of a control record that is not the newest one, and syncs it. @throws the errors of node:fs */
export async function writeControl(kernel: Kernel, fd: number, record: ControlRecord): Promise<void> {
  const text = Buffer.from(JSON.stringify(record));
  assert(HEADER_BYTES + text.length <= COPY_BYTES, 'a control record fits into its copy');
  const bytes = Buffer.alloc(roundUp(HEADER_BYTES + text.length, PAGE_BYTES));
  bytes.write(MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(text.length, 8);
  bytes.writeUInt32LE(crc32c(text), 12);
  text.copy(bytes, HEADER_BYTES);
  writeWhole(kernel, fd, bytes, (record.checkpoint % 2) * COPY_BYTES);
  await kernel.fdatasync(fd);
}

/** Reads the control record in force; undefined when there is no whole copy, or no file. */
export const readControl = (kernel: Kernel, path: string): ControlRecord | undefined =>
  kernel.exists(path) ? parseControl(readWhole(kernel, path)) : undefined;

/** Returns the newest whole copy of the control record; undefined when there is none. */
export function parseControl(bytes: Buffer): ControlRecord | undefined {
  const copies = [0, COPY_BYTES].flatMap((at) => parseCopy(bytes, at) ?? []);
  return copies.sort((a, b) => b.checkpoint - a.checkpoint)[0];
}

function parseCopy(bytes: Buffer, at: number): ControlRecord | undefined {
  if (bytes.length < at + HEADER_BYTES || bytes.toString('latin1', at, at + MAGIC.length) !== MAGIC)
    return undefined;
  const length = bytes.readUInt32LE(at + 8);
  const text = bytes.subarray(at + HEADER_BYTES, at + HEADER_BYTES + length);
  // After a tear behind the magic, length and checksum are zeros. The checksum of an empty text is 0, so it would match.
  const isWhole = length > 0 && text.length === length && crc32c(text) === bytes.readUInt32LE(at + 12);
  if (!isWhole) return undefined;
  return JSON.parse(text.toString()) as ControlRecord;
}

/** Checks a name and an order. @throws QueueError `bad-setting` */
export function checkDefinition({ name, order }: QueueDefinition): void {
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(name))
    throw new QueueError(
      'bad-setting',
      `queue ${name}: expected a name of 1 to 64 letters, digits, dots, dashes and underscores`,
    );
  if (order !== 'strict' && order !== 'relaxed')
    throw new QueueError(
      'bad-setting',
      `queue ${name}: order: found ${String(order)}, expected strict or relaxed`,
    );
}
