/**
 * A record of the queue data file (patent [0023, 0024, 0025]), little-endian, starting on a 256-byte boundary:
 *
 *     0   4  signature 252 88 132 133
 *     4   1  type of message (1 SMTP, 2 SMS)
 *     5   1  version of this layout (1)
 *     6   2  zero
 *     8   8  date, milliseconds since the epoch (seconds are too coarse to order messages)
 *    16   8  message number, never used twice in the life of a queue
 *    24   4  length n of the data
 *    28   4  checksum of bytes 0-27
 *    32   n  data: the body (patent [0027])
 *  32+n   4  checksum of bytes 32-31+n, seeded with the header's checksum
 *
 * Both checksums are CRC-32C, keyed (see checksum.ts). The header's checksum lets a scan trust the length
 * before it has read the data. It also distinguishes a torn or rotted record from bytes that never were a
 * record.
 */

/** Size of a slot of the ring, in bytes. Every record starts on a slot boundary. */
export const SLOT_BYTES = 256;
export const HEADER_BYTES = 32;
export const TRAILER_BYTES = 4;
export const RECORD_OVERHEAD_BYTES = HEADER_BYTES + TRAILER_BYTES;
export const LAYOUT_VERSION = 1;

/** The signature 252 88 132 133 as a little-endian 32-bit word. */
export const SIGNATURE_WORD = 0x858458fc;

/** Byte offsets of the header's fields within a record. */
export const HEADER_OFFSET = {
  signature: 0,
  type: 4,
  version: 5,
  date: 8,
  number: 16,
  dataLength: 24,
  headerChecksum: 28,
} as const;

/**
 * Returns how many bytes of the data file a record of `recordBytes` occupies: it is rounded up to a multiple of
 * SLOT_BYTES.
 */
export const extentOf = (recordBytes: number): number => Math.ceil(recordBytes / SLOT_BYTES) * SLOT_BYTES;
