import type { Kernel } from '../../common/platform/kernel.js';
import type { ChecksumKey } from '../../common/record/checksum.js';
import { readWhole } from '../files.js';
import {
  type LogRecord,
  OPERATION,
  RECORD_HEADER_BYTES,
  RECORD_MAGIC,
  RECORD_UNIT_BYTES,
  readRecord,
} from './record.js';
import { listSegments, segmentPath } from './segment-ring.js';

/** A part of the log that a recovery cannot use. */
export interface DamagedPart {
  position: number;
  /** The record, if its header is intact. */
  record: LogRecord | undefined;
  bytes: Buffer;
  /** Whether it lies before the position that a later record states to be synced: it was confirmed, and it is not a torn tail. */
  isConfirmed: boolean;
}

/** What a recovery reads from the log. */
export interface ScannedLog {
  /** Intact records, in order, with whole transactions only. */
  records: LogRecord[];
  /** Damaged parts, in order: those of confirmed transactions, and those that may not have been confirmed. */
  damaged: DamagedPart[];
  /** Newest generation of which there is a record; undefined when there is no record. */
  generation: number | undefined;
  /** Lowest segment that was never used. */
  nextSequence: number;
}

/** Where to read, and which records count. */
export interface ScanOptions {
  directory: string;
  segmentBytes: number;
  key: ChecksumKey;
  /** Position from which records count. */
  from: number;
  /** Generation of the records that count. Default: the newest one that is found. */
  generation?: number | undefined;
}

/** A record or a gap, as it lies in the log. */
type Item =
  | { state: 'valid' | 'damaged'; position: number; record: LogRecord }
  | { state: 'gap'; position: number; bytes: Buffer };

/**
 * Reads the log. The first gap ends it: behind the position that a later record states to be synced, a gap is a torn tail,
 * and no client got a confirmation for it. Before that position a gap is damage: it is reported, and reading continues behind it.
 *
 * If a record at the end has an intact header and a damaged body, it is torn or damaged. Nothing shows which. It is kept
 * aside in both cases, with the other records of its transaction.
 */
export function scanLog(options: ScanOptions, kernel: Kernel): ScannedLog {
  const sequences = listSegments(options.directory, kernel);
  const all = [...itemsOf(sequences, options, kernel)];
  // Do not pass all records as arguments to Math.max: a call cannot have so many.
  const newest = all.reduce<number | undefined>(
    (highest, item) => (item.state === 'gap' ? highest : Math.max(highest ?? 0, item.record.generation)),
    undefined,
  );
  const generation = options.generation ?? newest;
  const items = withoutOlder(all, generation, options.generation === undefined);
  const stated = items.reduce(
    (highest, item) => (item.state === 'gap' ? highest : Math.max(highest, item.record.synced)),
    0,
  );
  const end = items.findIndex((item) => item.state === 'gap' && item.position >= stated);
  const read = end === -1 ? items : items.slice(0, end);
  return {
    ...wholeTransactions(read, stated),
    generation: newest,
    nextSequence: (sequences.at(-1) ?? -1) + 1,
  };
}

/**
 * Turns records of other generations into gaps. Leaves out the gaps at the end.
 * @param isUnknown whether the beginning of the generation is unknown. Everything before its first record is then left out.
 */
function withoutOlder(items: readonly Item[], generation: number | undefined, isUnknown: boolean): Item[] {
  const ofGeneration = (item: Item) => item.state !== 'gap' && item.record.generation === generation;
  const first = isUnknown ? Math.max(0, items.findIndex(ofGeneration)) : 0;
  return items
    .slice(first, items.findLastIndex(ofGeneration) + 1)
    .map((item) =>
      item.state === 'gap' || ofGeneration(item) ? item : { ...item, state: 'gap', bytes: NOTHING },
    );
}

const NOTHING = Buffer.alloc(0);

function* itemsOf(
  sequences: readonly number[],
  { directory, segmentBytes, key, from }: ScanOptions,
  kernel: Kernel,
): Generator<Item> {
  const first = Math.floor(from / segmentBytes);
  let expected = first;
  for (const sequence of sequences) {
    if (sequence < first) continue;
    const base = sequence * segmentBytes;
    // A segment is missing, or an earlier one ends before its end.
    if (sequence > expected) yield { state: 'gap', position: expected * segmentBytes, bytes: NOTHING };
    expected = sequence + 1;
    const segment = readWhole(kernel, segmentPath(directory, sequence));
    yield* itemsOfSegment(segment, base, sequence === first ? from - base : 0, segmentBytes, key);
  }
}

function* itemsOfSegment(
  segment: Buffer,
  base: number,
  start: number,
  segmentBytes: number,
  key: ChecksumKey,
): Generator<Item> {
  for (let at = start; segmentBytes - at >= RECORD_UNIT_BYTES; ) {
    const found = readRecord(segment, at, base + at, key);
    if (found.state !== 'none') {
      yield { state: found.state, position: base + at, record: found.record };
      at += found.extent;
      continue;
    }
    const next = nextRecord(segment, at + RECORD_UNIT_BYTES, base, key);
    // A rest that is shorter than the header of a record can hold none.
    const isShortRest = segmentBytes - at < RECORD_HEADER_BYTES && next === segment.length;
    if (!isShortRest) yield { state: 'gap', position: base + at, bytes: segment.subarray(at, next) };
    if (next === segment.length) return;
    at = next;
  }
}

/** Returns the offset of the next record from `from` on; the length of the segment when there is none. */
function nextRecord(segment: Buffer, from: number, base: number, key: ChecksumKey): number {
  for (let at = segment.indexOf(RECORD_MAGIC, from); at !== -1; at = segment.indexOf(RECORD_MAGIC, at + 1)) {
    if (at % RECORD_UNIT_BYTES === 0 && readRecord(segment, at, base + at, key).state !== 'none') return at;
  }
  return segment.length;
}

/**
 * Leaves out the records that do not count. Below the stated position every transaction was confirmed, so each intact record
 * counts. Behind this position a transaction counts only as a whole.
 */
function wholeTransactions(items: readonly Item[], stated: number): Pick<ScannedLog, 'records' | 'damaged'> {
  const records: LogRecord[] = [];
  const damaged: DamagedPart[] = [];
  for (const transaction of transactionsOf(items)) {
    const isDamaged = transaction.some(({ state }) => state !== 'valid');
    for (const item of transaction) {
      const { position } = item;
      const isConfirmed = position < stated;
      const counts = isConfirmed || (!isDamaged && isCommitted(transaction));
      if (item.state === 'valid' && counts) records.push(item.record);
      else if (item.state === 'gap')
        damaged.push({ position, record: undefined, bytes: item.bytes, isConfirmed });
      else if (isDamaged)
        damaged.push({ position, record: item.record, bytes: item.record.body, isConfirmed });
    }
  }
  return { records, damaged };
}

/** Reports whether the first and the last record of a transaction are there. */
function isCommitted(transaction: readonly Item[]): boolean {
  const [first] = transaction;
  const last = transaction.at(-1);
  return (
    first !== undefined &&
    first.state !== 'gap' &&
    first.position === first.record.transaction &&
    last !== undefined &&
    last.state !== 'gap' &&
    last.record.isLast
  );
}

/** Groups records by their transactions. A gap belongs to the transaction around it, or forms a group of its own. */
function* transactionsOf(items: readonly Item[]): Generator<Item[]> {
  let group: Item[] = [];
  for (const item of items) {
    if (item.state !== 'gap' && isBesideTransactions(item.record)) continue;
    const open = group.find((one) => one.state !== 'gap');
    const isContinued =
      open !== undefined &&
      (item.state === 'gap' || ('record' in open && item.record.transaction === open.record.transaction));
    if (!isContinued && group.length > 0) {
      yield group;
      group = [];
    }
    group.push(item);
    const isEnd = item.state !== 'gap' && item.record.isLast;
    if (!isEnd) continue;
    yield group;
    group = [];
  }
  if (group.length > 0) yield group;
}

const isBesideTransactions = ({ operation }: LogRecord): boolean =>
  operation === OPERATION.note || operation === OPERATION.pad;
