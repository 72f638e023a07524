import { PAGE_BYTES } from '../../common/platform/map.js';
import { SLOT_BYTES } from '../record/layout.js';

/**
 * The index file (patent [0018, 0019, 0020]), little-endian, memory-mapped by every process:
 *
 *     page 0      header, which never changes: magic, version, geometry, queue id, checksum (index-file.ts)
 *     page 1      the `queue_index` structure and the undo log (words below)
 *     pages 2-3   worker slots: one 32-bit incarnation each
 *     from 16384  `index_entry` structures of 64 bytes, 64 per 4096-byte block: none straddles two
 *     page-aligned behind them: consumption marks, 8 bytes for each 256-byte slot of the data file (marks.ts)
 */

/** Size of a word of the index, in bytes. */
export const WORD_BYTES = 4;
export const ENTRY_BYTES = 64;
export const ENTRY_WORDS = ENTRY_BYTES / WORD_BYTES;
export const ENTRIES_OFFSET = 4 * PAGE_BYTES;
export const MAX_WORKER_SLOTS = (2 * PAGE_BYTES) / WORD_BYTES;
export const MARK_BYTES = 8;

/** Entry number that means "no entry"; it ends both lists (patent [0034]). */
export const NONE = -1;

/** Word numbers (32 bits each, from the start of the file) of the `queue_index` fields. */
export const FIELD = {
  /**
   * First entry of the in-use list, or NONE. The free space of the ring ends at the offset of its record (R in
   * the patent).
   */
  head: 1024,
  /** Last entry of the in-use list, or NONE. */
  tail: 1025,
  /** First entry of the free list, or NONE. */
  free: 1026,
  /** Number of entries on the in-use list. */
  inUse: 1027,
  /**
   * Slot + 1 of the mutex's owner while the owner changes the lists. A killed owner leaves its value here.
   */
  mutexOwner: 1028,
  /** Number of valid entries of the undo log. */
  undoCount: 1029,
  /** Counter of the sync helpers that have served this data file. */
  helperIncarnation: 1030,
  /** Counter of the messages that became ready. A change wakes the workers. */
  arrivals: 1031,
  /** Next message number, two words (low, high), like all numbers of two words. */
  nextNumber: 1032,
  /** Byte offset in the data file at which the next record is written (W in the patent), two words. */
  writeOffset: 1034,
  /** Bytes of the ring that the entries of the in-use list occupy, two words. */
  usedBytes: 1036,
  /** Start of the last completed index sync, in milliseconds since the epoch, two words (patent [0025]). */
  lastSync: 1038,
  /**
   * Next message number at the start of the last completed index sync: that sync covers all lower numbers.
   * Two words.
   */
  lastSyncNumber: 1040,
  /** Counter of the batches that sync helpers have written. */
  batches: 1042,
  /**
   * 1 during an msync by a helper or a restore. If the process dies during the msync, it is unknown which
   * pages are dirty.
   */
  syncing: 1043,
  /** 1 during a sync of the index, and after a failed sync until the next one succeeds (`beginIndexSync`). */
  indexSyncing: 1044,
  /** First word of the undo log: pairs of (word number, old value). */
  undo: 1056,
} as const;

/** Capacity of the undo log in pairs. The largest single change to the lists needs 24. */
export const UNDO_CAPACITY = 64;

/** Number of the first word of the worker slots' incarnations. */
export const WORKER_SLOTS_WORD = (2 * PAGE_BYTES) / WORD_BYTES;

/** Word numbers within an `index_entry` (patent [0019]). */
export const ENTRY = {
  /** Byte offset of the record in the data file, two words. */
  offset: 0,
  /** Message number, two words. */
  number: 2,
  /** Length of the whole record in bytes. */
  length: 4,
  /** Incarnation and slot of the worker that has locked the entry (entry-lock.ts), or 0. */
  lock: 5,
  /** Type of the message (1 SMTP, 2 SMS). */
  type: 6,
  status: 7,
  checksum: 8,
  retryCount: 9,
  /** Milliseconds since the epoch, two words. */
  lastRetry: 10,
  previous: 12,
  next: 13,
  /**
   * Number of attempts to which the next hop answered for this message, and `PARKED_BIT`. This word and
   * `firstTry` hold a value only while `retryCount` is not 0: `append` does not clear them.
   */
  answered: 14,
  /** Time of the first attempt, as milliseconds after the date of the record. */
  firstTry: 15,
} as const;

/** Bit of `ENTRY.answered`: the message belongs in the dead-letter queue, which had no room for it. */
export const PARKED_BIT = 2 ** 30;

/** Values of an entry's status. */
export const STATUS = {
  free: 0,
  /** Space and entry are taken. The record is being copied or synced, and no worker may deliver it. */
  reserved: 1,
  /** The record is on the disk and waits for delivery. */
  ready: 2,
} as const;

/** The numbers that fix the size of an index file. */
export interface Geometry {
  entries: number;
  workerSlots: number;
  /**
   * Size of the data file in bytes. It determines the number of consumption marks: one for each slot
   * (marks.ts).
   */
  dataBytes: number;
}

/** Returns the byte offset in the index file at which the marks of consumed messages (marks.ts) begin. */
export const marksOffset = (entries: number): number =>
  Math.ceil((ENTRIES_OFFSET + entries * ENTRY_BYTES) / PAGE_BYTES) * PAGE_BYTES;

/** Returns the size of the index file in bytes. It never changes. */
export function indexBytes(geometry: Geometry): number {
  const marks = Math.ceil(geometry.dataBytes / SLOT_BYTES) * MARK_BYTES;
  return marksOffset(geometry.entries) + Math.ceil(marks / PAGE_BYTES) * PAGE_BYTES;
}
