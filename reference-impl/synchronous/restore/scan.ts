import type { DataBytes } from '../../common/platform/data-map.js';
import type { ChecksumKey } from '../../common/record/checksum.js';
import { extentOf, SLOT_BYTES } from '../record/layout.js';
import {
  type RecordHeader,
  readSlot,
  repairHeader,
  type SlotContent,
  type ValidRecord,
} from '../record/record.js';
import type { Ring } from '../ring/reserve.js';

/** The records that a scan found. */
export interface ScanResult {
  /** Complete records, in the order of their offsets. They never overlap. */
  valid: ValidRecord[];
  /**
   * Headers of this queue whose record is torn or rotted (header or data), and that no newer whole record overlaps.
   */
  damaged: DamagedRecord[];
}

/** The header of a damaged record; `what` is the damaged part. */
export interface DamagedRecord extends RecordHeader {
  what: 'data' | 'header';
}

/** Reads the content of slots, either from the data file each time or with a cache. */
export interface SlotReader {
  /** Returns the result of `readSlot`. */
  read(data: DataBytes, key: ChecksumKey, offset: number): SlotContent;
  /** Returns a slot boundary at or behind `offset`. No slot between the two holds a signature. */
  skip(offset: number): number;
}

const UNCACHED: SlotReader = { read: readSlot, skip: (offset) => offset };

/** Distance in bytes by which the scan asks the kernel to read ahead. */
const READ_AHEAD_BYTES = 8 * 2 ** 20;

/**
 * Scans the ring for records at the 256-byte boundaries (patent [0026]). The scan skips the whole of a valid
 * record, so that bytes inside a message body are never taken for a record. Otherwise it advances by one
 * boundary, because a torn record may have overwritten only part of the space of older records, and the records
 * behind it may still be whole.
 *
 * Its cost is one read of the file and one checksum over each record.
 */
export function scan(data: DataBytes, ring: Ring, key: ChecksumKey, slots = UNCACHED): ScanResult {
  const valid: ValidRecord[] = [];
  const damaged: DamagedRecord[] = [];
  let requestedTo = ring.start;
  for (let offset = slots.skip(ring.start); offset < ring.end; offset = slots.skip(offset)) {
    if (offset + READ_AHEAD_BYTES > requestedTo && requestedTo < ring.end) {
      data.willNeed(requestedTo, Math.min(READ_AHEAD_BYTES, ring.end - requestedTo));
      requestedTo += READ_AHEAD_BYTES;
    }
    const found = slots.read(data, key, offset);
    offset += SLOT_BYTES;
    if (found.state === 'valid') {
      valid.push(found.header);
      offset = found.header.offset + extentOf(found.header.sizeBytes);
    } else if (found.state === 'damaged') {
      damaged.push({ ...found.header, what: 'data' });
    } else if (found.state === 'foreign') {
      const header = repairHeader(data, key, offset - SLOT_BYTES);
      if (header) damaged.push({ ...header, what: 'header' });
    }
  }
  return {
    valid,
    damaged: damaged.filter((header) => !isOverwritten(valid, header)),
  };
}

/**
 * Returns whether a newer record lies in the space of a record. The queue reuses the space of a record only after the
 * record is consumed. An older whole record there says nothing: sectors of before came back, and the message is lost.
 * @param valid complete records, which must be in order and disjoint.
 */
export function isOverwritten(
  valid: readonly RecordHeader[],
  { offset, sizeBytes, number }: Pick<RecordHeader, 'offset' | 'sizeBytes' | 'number'>,
): boolean {
  const end = offset + extentOf(sizeBytes);
  for (let at = firstEndingBehind(valid, offset); at < valid.length; at += 1) {
    const record = valid[at] as RecordHeader;
    if (record.offset >= end) return false;
    if (record.number > number) return true;
  }
  return false;
}

/**
 * Returns whether `[offset, offset + length)` overlaps one of the records, which must be in order and
 * disjoint.
 */
export function overlapsAny(records: readonly RecordHeader[], offset: number, length: number): boolean {
  const next = records[firstEndingBehind(records, offset)];
  return next !== undefined && next.offset < offset + length;
}

/** Returns the position of the first record that ends behind `offset`; the number of records if none does. */
function firstEndingBehind(records: readonly RecordHeader[], offset: number): number {
  let low = 0;
  let high = records.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const record = records[middle] as RecordHeader;
    if (record.offset + extentOf(record.sizeBytes) <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
