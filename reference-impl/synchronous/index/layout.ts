import { PAGE_BYTES } from '../platform/map.js';
import { SLOT_BYTES } from '../record/layout.js';

/**
 * The index file [0018, 0019, 0020], little-endian, memory-mapped by every process:
 *
 *     page 0      what never changes: magic, version, geometry, queue id, checksum (see index-file.ts)
 *     page 1      the `queue_index` structure and the undo log (words below)
 *     pages 2-3   worker slots: one 32-bit incarnation each
 *     from 16384  `index_entry` structures, 64 bytes each: 64 to a 4096-byte block, none straddles one [0020]
 *     page-aligned behind them: consumption marks, 8 bytes for each 256-byte slot of the data file (marks.ts)
 */
export const WORD_BYTES = 4;
export const ENTRY_BYTES = 64;
export const ENTRY_WORDS = ENTRY_BYTES / WORD_BYTES;
export const ENTRIES_OFFSET = 4 * PAGE_BYTES;
export const MAX_WORKER_SLOTS = (2 * PAGE_BYTES) / WORD_BYTES;
export const MARK_BYTES = 8;

/** "No entry": ends both lists [0034]. */
export const NONE = -1;

/** Word numbers (32 bits each, from the start of the file) of the `queue_index` fields. */
export const FIELD = {
  /** Oldest entry of the in-use list, or NONE. */
  head: 1024,
  /** The last entry written. */
  tail: 1025,
  /** Head of the free list. */
  free: 1026,
  /** Entries on the in-use list. */
  inUse: 1027,
  /** Slot + 1 of the mutex's owner while it changes the lists; left behind by an owner that was killed. */
  mutexOwner: 1028,
  /** Entries of the undo log that are in force. */
  undoCount: 1029,
  /** Counts the sync helpers that have served this data file. */
  helperIncarnation: 1030,
  /** Counts messages that became ready; a change wakes the workers. */
  arrivals: 1031,
  /** Next message number, low and high word. */
  nextNumber: 1032,
  /** W: where the next record goes (a byte offset in the data file), two words. */
  writeOffset: 1034,
  /** Bytes of the ring that entries of the in-use list take up, two words. */
  usedBytes: 1036,
  /** When the last completed index sync began, milliseconds since the epoch, two words [0025]. */
  lastSync: 1038,
  /** Next message number at that moment: what the sync vouches for, two words. */
  lastSyncNumber: 1040,
  /** Counts the batches that sync helpers have written. */
  batches: 1042,
  /** 1 while a helper or a restore has an msync under way: if it dies then, nobody knows which pages are dirty. */
  syncing: 1043,
  /** 1 while the index is synced, and until the next one when that failed (index-sync.ts). */
  indexSyncing: 1044,
  /** First word of the undo log: pairs of (word number, old value). */
  undo: 1056,
} as const;

/** Pairs that the undo log holds; the largest single change to the lists needs 24. */
export const UNDO_CAPACITY = 64;

/** First word of the worker slots' incarnations. */
export const WORKER_SLOTS_WORD = (2 * PAGE_BYTES) / WORD_BYTES;

/** Word numbers within an `index_entry` [0019]. */
export const ENTRY = {
  /** Offset of the record in the data file, two words. */
  offset: 0,
  /** Message number, two words. */
  number: 2,
  /** Length of the whole record. */
  length: 4,
  /** Who has it locked: incarnation and slot of a worker (entry-lock.ts), or 0. */
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
} as const;

export const STATUS = {
  free: 0,
  /** Space and entry are taken; the record is being copied or synced, and nobody may deliver it. */
  reserved: 1,
  /** The record is on the disk and waits for delivery. */
  ready: 2,
} as const;

export interface Geometry {
  entries: number;
  workerSlots: number;
  /** Size of the data file, which fixes the number of marks. */
  dataBytes: number;
}

export const marksOffset = (entries: number): number =>
  Math.ceil((ENTRIES_OFFSET + entries * ENTRY_BYTES) / PAGE_BYTES) * PAGE_BYTES;

/** Full and final size of the index file. */
export function indexBytes(geometry: Geometry): number {
  const marks = Math.ceil(geometry.dataBytes / SLOT_BYTES) * MARK_BYTES;
  return marksOffset(geometry.entries) + Math.ceil(marks / PAGE_BYTES) * PAGE_BYTES;
}
