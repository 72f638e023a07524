import type { DataBytes } from '../platform/data-map.js';
import type { ChecksumKey } from '../record/checksum.js';
import { extentOf, SLOT_BYTES } from '../record/layout.js';
import {
  type RecordHeader,
  readSlot,
  repairHeader,
  type SlotContent,
  type ValidRecord,
} from '../record/record.js';
import type { Ring } from '../ring/reserve.js';

export interface ScanResult {
  /** Whole records in order of offset; they never overlap. */
  valid: ValidRecord[];
  /** Headers of this queue's that are torn or have rotted, or whose data is, and that no whole record lies upon. */
  damaged: DamagedRecord[];
}

export interface DamagedRecord extends RecordHeader {
  what: 'data' | 'header';
}

/** Looks at slot boundaries: anew each time, or with the help of what was seen before. */
export interface SlotReader {
  /** Gives what `readSlot` gives. */
  read(data: DataBytes, key: ChecksumKey, offset: number): SlotContent;
  /** A slot boundary at or behind `offset`; between the two there is nothing. */
  skip(offset: number): number;
}

const UNCACHED: SlotReader = { read: readSlot, skip: (offset) => offset };

/** How far ahead of itself the scan asks the kernel to read. */
const READ_AHEAD_BYTES = 8 * 2 ** 20;

/**
 * Scans the ring at 256-byte boundaries for records [0026]. A whole record is stepped over entirely: nothing inside a
 * message body is ever taken for a record. Everything else is stepped over by one boundary, because below a
 * torn record older whole ones may stand.
 *
 * Bounded by reading the file once and by one checksum over each record.
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
    damaged: damaged.filter((header) => !overlapsAny(valid, header.offset, extentOf(header.sizeBytes))),
  };
}

/** Does `[offset, offset + length)` meet one of the records? They are in order and disjoint. */
export function overlapsAny(records: readonly RecordHeader[], offset: number, length: number): boolean {
  let low = 0;
  let high = records.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const record = records[middle] as RecordHeader;
    if (record.offset + extentOf(record.sizeBytes) <= offset) low = middle + 1;
    else high = middle;
  }
  const next = records[low];
  return next !== undefined && next.offset < offset + length;
}
