import type { DataBytes } from '../../common/platform/data-map.js';
import type { ChecksumKey } from '../../common/record/checksum.js';
import type { IndexImage } from '../index/image.js';
import { ENTRY, FIELD, PARKED_BIT, STATUS } from '../index/layout.js';
import { isConsumed } from '../index/marks.js';
import { readGeneration } from '../record/generation.js';
import { HEADER_BYTES, SLOT_BYTES } from '../record/layout.js';
import type { RecordHeader, ValidRecord } from '../record/record.js';
import type { Ring } from '../ring/reserve.js';
import { type DamagedRecord, isOverwritten, type SlotReader, scan } from './scan.js';

/** A message that the restored index will hold. */
export interface LiveRecord extends ValidRecord {
  retryCount: number;
  lastRetryMs: number;
  /** `ENTRY.answered` and `ENTRY.firstTry` of the old index; 0 while `retryCount` is 0. */
  answered: number;
  firstTry: number;
}

/** Bytes of a stored message that can no longer be read. They must be reported and kept aside. */
export interface Damage {
  offset: number;
  /** Number of bytes to keep aside. It is less than the record has when another damage holds most of its bytes. */
  lengthBytes: number;
  number: number;
  what: 'data' | 'header' | 'record gone';
}

/** The content of the restored index, and the numbers for the report. */
export interface RestorePlan {
  /** Messages in order of offset. */
  live: LiveRecord[];
  damage: Damage[];
  /** Number of whole records that are marked as consumed. */
  consumed: number;
  /**
   * Number of restored messages of which the old index does not prove that they were not consumed: no entry of
   * it names the message, or the whole index is an older copy.
   */
  uncertain: number;
  /**
   * Number of records that were reserved at the crash and are not whole. They were never confirmed and are
   * dropped.
   */
  unfinished: number;
  /**
   * Damaged records to mark as consumed after they are kept aside. Otherwise the next restore would report
   * them again.
   */
  toMarkConsumed: { offset: number; number: number }[];
  /** First message number of the new generation. */
  nextNumber: number;
}

/**
 * Size of a generation of message numbers. A message number is generation x 2^32 + counter. Each restore
 * begins a new generation, and the generation is in the data file on the disk before its first number is
 * assigned (record/generation.ts). No number is therefore ever used twice. A mark that matches a record
 * belongs to that record, wherever the mark comes from: an index that is partly damaged, an index whose pages
 * are from different moments, or an old copy of the index that was put back.
 *
 * The next number cannot be derived from the records: the newest ones may have been erased, overwritten or
 * withdrawn, while the marks of their predecessors remain. It cannot be derived from the index: its counter
 * may be lost while its marks remain. It is also not enough to clear the marks without a record in each
 * restore: a copy of the index may bring them back, and a message that got such a number again in the
 * meantime would be taken for consumed.
 */
export const NUMBERS_PER_GENERATION = 2 ** 32;
/**
 * Upper bound of the generations that the index counter may be ahead of every record and of the generation in
 * the data file. A counter that is further ahead is damaged and is ignored.
 */
const MAX_GENERATION_JUMP = 256;

/** Options of `planRestore`. */
export interface RestoreOptions {
  /** Milliseconds since the epoch. */
  nowMs?: number;
  /** As for `scan`. */
  slots?: SlotReader | undefined;
  /** What is left of an index that is not usable. It only names messages that the data file no longer holds. */
  salvaged?: IndexImage | undefined;
  /** Size of the largest record. An index entry that claims more is damaged. */
  maxRecordBytes?: number | undefined;
}

/** The content of an entry of the old index that names a record. */
interface Hint {
  status: number;
  offset: number;
  sizeBytes: number;
  retryCount: number;
  lastRetryMs: number;
  answered: number;
  firstTry: number;
}

/**
 * Decides what the index must hold, from the data file and the remains of the index (patent [0025, 0026]). It
 * is pure: it changes nothing, throws for no content of the two files, and gives the same plan whenever it is
 * repeated.
 *
 * A record belongs in the index if it is whole and not marked as consumed. The old index only adds information
 * that the data file does not have: retries, and the numbers of records that can no longer be read. Its lists
 * are not followed, because they may be from any moment, or from several moments. Its entries are read one by
 * one, which handles every case of the patent [0025]: loops, wrong lists, entries on no list.
 *
 * @param image the old index, or undefined when no index belongs to this data file.
 */
export function planRestore(
  data: DataBytes,
  ring: Ring,
  key: ChecksumKey,
  image: IndexImage | undefined,
  { nowMs = Date.now(), slots, salvaged, maxRecordBytes = Number.POSITIVE_INFINITY }: RestoreOptions = {},
): RestorePlan {
  const read = (from: IndexImage) => readHints(from, ring, maxRecordBytes);
  const hints = image ? read(image) : new Map<number, Hint>();
  const gone = !image && salvaged ? read(salvaged) : hints;
  const found = scan(data, ring, key, slots);
  const consumed = (record: { offset: number; number: number }): boolean =>
    image !== undefined && isConsumed(image, key, record.offset, record.number);
  const plan: RestorePlan = {
    live: [],
    damage: [],
    consumed: 0,
    uncertain: 0,
    unfinished: 0,
    toMarkConsumed: [],
    nextNumber: 0,
  };
  for (const record of found.valid) {
    if (consumed(record)) plan.consumed += 1;
    else plan.live.push(withHint(plan, record, hints.get(record.number), nowMs));
  }
  for (const header of found.damaged) {
    if (!consumed(header)) noteDamage(plan, header, hints.get(header.number));
  }
  noteUnreadable(plan, gone, found.valid, consumed);
  boundCopies(plan.damage);
  const newest = Math.max(newestOf(found.valid), newestOf(found.damaged));
  plan.nextNumber = nextGeneration(
    Math.max(readGeneration(data), Math.floor(newest / NUMBERS_PER_GENERATION)),
    image,
  );
  // An index that does not know the newest records is an older copy. Its entries do not prove that a message
  // is alive, so every message is uncertain.
  const counted = image?.getWide(FIELD.nextNumber) ?? 0;
  if (found.valid.some((record) => record.number >= counted)) plan.uncertain = plan.live.length;
  return plan;
}

/**
 * Reads what each plausible entry of the old index says about a record. Returns it by message number: an entry from an
 * earlier moment may name another message at the same offset. Of a record that is too large to exist only the place of
 * its header is believed.
 */
function readHints(image: IndexImage, ring: Ring, maxRecordBytes: number): Map<number, Hint> {
  const hints = new Map<number, Hint>();
  for (let entry = 0; entry < image.geometry.entries; entry += 1) {
    const at = image.entryWord(entry);
    const status = image.get(at + ENTRY.status);
    if (status !== STATUS.ready && status !== STATUS.reserved) continue;
    const offset = image.getWide(at + ENTRY.offset);
    const claimedBytes = image.get(at + ENTRY.length);
    const sizeBytes = claimedBytes > maxRecordBytes ? HEADER_BYTES : claimedBytes;
    const inRing = offset >= ring.start && sizeBytes > 0 && offset + sizeBytes <= ring.end;
    if (!inRing || offset % SLOT_BYTES !== 0) continue;
    const number = image.getWide(at + ENTRY.number);
    // The message was confirmed if any of its entries says so.
    if (hints.get(number)?.status === STATUS.ready) continue;
    hints.set(number, {
      status,
      offset,
      sizeBytes,
      retryCount: Math.max(0, image.get(at + ENTRY.retryCount)),
      lastRetryMs: image.getWide(at + ENTRY.lastRetry),
      answered: image.get(at + ENTRY.answered),
      firstTry: image.get(at + ENTRY.firstTry),
    });
  }
  return hints;
}

/**
 * Returns a record with the retries that the old index entry `hint` names. Counts the record as uncertain when
 * the entry is missing or names another message.
 */
function withHint(plan: RestorePlan, record: ValidRecord, hint: Hint | undefined, nowMs: number): LiveRecord {
  const known = hint !== undefined && hint.offset === record.offset;
  if (!known) plan.uncertain += 1;
  const { offset, number, dateMs, type, sizeBytes, checksum } = record;
  return {
    offset,
    number,
    dateMs,
    type,
    sizeBytes,
    checksum,
    retryCount: known ? hint.retryCount : 0,
    // Ignore a time in the future: with a damaged index it could delay the message for ever.
    lastRetryMs: known && hint.lastRetryMs <= nowMs ? hint.lastRetryMs : 0,
    // A damaged index may hold any number here. More answers than attempts would end the retries too early.
    answered: known ? Math.min(Math.max(0, hint.answered % PARKED_BIT), hint.retryCount) : 0,
    firstTry: known ? Math.max(0, hint.firstTry) : 0,
  };
}

/** Adds a damaged record to the plan. A reserved record was never confirmed, so it is only counted. */
function noteDamage(plan: RestorePlan, record: DamagedRecord, hint: Hint | undefined): void {
  const { offset, number, sizeBytes, what } = record;
  plan.toMarkConsumed.push({ offset, number });
  if (hint?.status === STATUS.reserved && hint.offset === offset) plan.unfinished += 1;
  else plan.damage.push({ offset, number, lengthBytes: sizeBytes, what });
}

/** Adds the records of index entries whose space holds neither the readable record nor a newer one. */
function noteUnreadable(
  plan: RestorePlan,
  hints: Map<number, Hint>,
  valid: readonly ValidRecord[],
  consumed: (record: { offset: number; number: number }) => boolean,
): void {
  const known = new Set([...valid, ...plan.damage].map((record) => record.number));
  for (const [number, { status, offset, sizeBytes }] of hints) {
    if (known.has(number) || isOverwritten(valid, { offset, sizeBytes, number })) continue;
    if (consumed({ offset, number })) continue;
    if (status === STATUS.reserved) plan.unfinished += 1;
    else plan.damage.push({ offset, number, lengthBytes: sizeBytes, what: 'record gone' });
  }
}

/**
 * Shortens the copies of damaged records whose bytes another copy holds already, to a header: a damaged index may name
 * thousands of large records at the same place. A whole copy needs that at least half of its bytes are in no copy
 * before it, so all copies together have at most twice the bytes of the ring, and a header for each record. Records
 * whose header is in the data file come first, because the header proves them.
 */
function boundCopies(damage: readonly Damage[]): void {
  const order = [...damage].sort(
    (one, other) =>
      Number(one.what === 'record gone') - Number(other.what === 'record gone') ||
      other.lengthBytes - one.lengthBytes,
  );
  const copied = new Spans();
  for (const one of order) {
    const newBytes = copied.missingIn(one.offset, one.offset + one.lengthBytes);
    if (2 * newBytes < one.lengthBytes) one.lengthBytes = Math.min(one.lengthBytes, HEADER_BYTES);
    copied.add(one.offset, one.offset + one.lengthBytes);
  }
}

/** A set of bytes of the data file, as disjoint spans in order. */
class Spans {
  #spans: { from: number; to: number }[] = [];

  /** Returns the position of the first span that ends at or behind `offset`. */
  #firstEndingAt(offset: number): number {
    let low = 0;
    let high = this.#spans.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#spans[middle] as { to: number }).to < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Returns the number of bytes between `from` and `to` that are not in the set. */
  missingIn(from: number, to: number): number {
    let missing = to - from;
    for (let at = this.#firstEndingAt(from); at < this.#spans.length; at += 1) {
      const span = this.#spans[at] as { from: number; to: number };
      if (span.from >= to) break;
      missing -= Math.min(to, span.to) - Math.max(from, span.from);
    }
    return missing;
  }

  /** Adds the bytes from `from` up to but not including `to`. */
  add(from: number, to: number): void {
    const first = this.#firstEndingAt(from);
    const merged = { from, to };
    let behind = first;
    for (; behind < this.#spans.length; behind += 1) {
      const span = this.#spans[behind] as { from: number; to: number };
      if (span.from > to) break;
      merged.from = Math.min(merged.from, span.from);
      merged.to = Math.max(merged.to, span.to);
    }
    this.#spans.splice(first, behind - first, merged);
  }
}

/** Returns the highest message number, or 0 without records. */
function newestOf(records: readonly RecordHeader[]): number {
  let newest = 0;
  for (const { number } of records) if (number > newest) newest = number;
  return newest;
}

/**
 * Returns the first message number of the new generation.
 *
 * @param seen highest generation in the records and in the data file.
 */
function nextGeneration(seen: number, image: IndexImage | undefined): number {
  const counted = image ? Math.floor(image.getWide(FIELD.nextNumber) / NUMBERS_PER_GENERATION) : 0;
  const believed = counted - seen <= MAX_GENERATION_JUMP ? Math.max(seen, counted) : seen;
  return (believed + 1) * NUMBERS_PER_GENERATION;
}
