import type { IndexImage } from '../index/image.js';
import { ENTRY, FIELD, STATUS } from '../index/layout.js';
import { isConsumed } from '../index/marks.js';
import type { DataBytes } from '../platform/data-map.js';
import type { ChecksumKey } from '../record/checksum.js';
import { readGeneration } from '../record/generation.js';
import { extentOf, SLOT_BYTES } from '../record/layout.js';
import type { RecordHeader, ValidRecord } from '../record/record.js';
import type { Ring } from '../ring/reserve.js';
import { type DamagedRecord, overlapsAny, type SlotReader, scan } from './scan.js';

/** A message that the restored index will hold. */
export interface LiveRecord extends ValidRecord {
  retryCount: number;
  lastRetryMs: number;
}

/** Bytes that were a stored message and cannot be read any more; to be named and kept aside. */
export interface Damage {
  offset: number;
  lengthBytes: number;
  number: number;
  what: 'data' | 'header' | 'record gone';
}

export interface RestorePlan {
  /** In order of offset. */
  live: LiveRecord[];
  damage: Damage[];
  consumed: number;
  /** Alive only because nothing says consumed: found by the scan, not listed by the index (rule 2 of [0026]). */
  uncertain: number;
  /** Reserved when the crash came, and not whole: never confirmed, dropped. */
  unfinished: number;
  /** What is to be marked as consumed once the damage is kept aside, so that the next restore does not name it again. */
  toMarkConsumed: { offset: number; number: number }[];
  nextNumber: number;
}

/**
 * Message numbers are generation x 2^32 + counter, and each restore begins a new generation, which is on the disk, in the
 * data file, before its first number is given out (record/generation.ts). So no number is ever used twice, and a mark that
 * fits a record means that record, wherever the mark is from: of an index that is damaged in part, of one whose pages are
 * from several moments, of an old copy that somebody has put back.
 *
 * The records do not tell: the newest ones may have been erased, overwritten or withdrawn, while their predecessors' marks
 * stand. The index does not tell: its counter may be lost and its marks not. Nor is it enough to clear, in each
 * restore, the marks that belong to no record: a copy of the index may bring them back, and the numbers that were given
 * out again meanwhile are taken for consumed.
 */
export const NUMBERS_PER_GENERATION = 2 ** 32;
/** An index whose counter is further ahead than this of every record and of the data file's generation is not believed. */
const MAX_GENERATION_JUMP = 256;

interface Hint {
  status: number;
  number: number;
  sizeBytes: number;
  retryCount: number;
  lastRetryMs: number;
  /** Is the message that it names where it says, whole and not consumed? */
  matched: boolean;
}

/**
 * Decides what the index must hold, from the data file and whatever is left of the index [0025, 0026]. Pure: it
 * changes nothing, throws for no content of either, and gives the same answer however often it is asked.
 *
 * A record belongs into the index if it is whole and not marked consumed. The old index only adds what the data file
 * does not know: retries, and the names of records that can no longer be read. Its lists are not followed (they
 * may be from any moment, or from several at once); its entries are looked at one by one, which settles every
 * case of [0025]: loops, wrong lists, entries on no list.
 *
 * @param image the old index, or undefined when there is none that belongs to this data file.
 * @param nowMs milliseconds since the epoch.
 * @param slots as for `scan`.
 */
export function planRestore(
  data: DataBytes,
  ring: Ring,
  key: ChecksumKey,
  image: IndexImage | undefined,
  nowMs: number = Date.now(),
  slots?: SlotReader,
): RestorePlan {
  const hints = image ? readHints(image, ring) : new Map<number, Hint>();
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
    else plan.live.push(withHint(plan, record, hints.get(record.offset), nowMs));
  }
  for (const header of found.damaged) {
    if (!consumed(header)) noteDamage(plan, header, hints.get(header.offset));
  }
  noteUnreadable(plan, hints, found.valid, consumed);
  const newest = Math.max(newestOf(found.valid), newestOf(found.damaged));
  plan.nextNumber = nextGeneration(
    Math.max(readGeneration(data), Math.floor(newest / NUMBERS_PER_GENERATION)),
    image,
  );
  // An index that does not know the newest records is an older copy, and vouches for none of the others either.
  const counted = image?.getWide(FIELD.nextNumber) ?? 0;
  if (found.valid.some((record) => record.number >= counted)) plan.uncertain = plan.live.length;
  return plan;
}

function readHints(image: IndexImage, ring: Ring): Map<number, Hint> {
  const hints = new Map<number, Hint>();
  for (let entry = 0; entry < image.geometry.entries; entry += 1) {
    const at = image.entryWord(entry);
    const status = image.get(at + ENTRY.status);
    if (status !== STATUS.ready && status !== STATUS.reserved) continue;
    const offset = image.getWide(at + ENTRY.offset);
    const sizeBytes = image.get(at + ENTRY.length);
    const inRing = offset >= ring.start && sizeBytes > 0 && offset + sizeBytes <= ring.end;
    if (!inRing || offset % SLOT_BYTES !== 0) continue;
    hints.set(offset, {
      status,
      number: image.getWide(at + ENTRY.number),
      sizeBytes,
      retryCount: Math.max(0, image.get(at + ENTRY.retryCount)),
      lastRetryMs: image.getWide(at + ENTRY.lastRetry),
      matched: false,
    });
  }
  return hints;
}

function withHint(plan: RestorePlan, record: ValidRecord, hint: Hint | undefined, nowMs: number): LiveRecord {
  const known = hint !== undefined && hint.number === record.number;
  if (known) hint.matched = true;
  else plan.uncertain += 1;
  const { offset, number, dateMs, type, sizeBytes, checksum } = record;
  return {
    offset,
    number,
    dateMs,
    type,
    sizeBytes,
    checksum,
    retryCount: known ? hint.retryCount : 0,
    // A clock that is far ahead in a damaged index would hold the message back for ever.
    lastRetryMs: known && hint.lastRetryMs <= nowMs ? hint.lastRetryMs : 0,
  };
}

function noteDamage(plan: RestorePlan, record: DamagedRecord, hint: Hint | undefined): void {
  const { offset, number, sizeBytes, what } = record;
  plan.toMarkConsumed.push({ offset, number });
  if (hint?.status === STATUS.reserved && hint.number === number) plan.unfinished += 1;
  else plan.damage.push({ offset, number, lengthBytes: sizeBytes, what });
}

/** Entries that say "ready" where no record can be read, and where no later one was written. */
function noteUnreadable(
  plan: RestorePlan,
  hints: Map<number, Hint>,
  valid: readonly ValidRecord[],
  consumed: (record: { offset: number; number: number }) => boolean,
): void {
  const damaged = new Set(plan.damage.map((damage) => damage.offset));
  for (const [offset, { status, number, sizeBytes, matched: met }] of hints) {
    if (met || damaged.has(offset) || overlapsAny(valid, offset, extentOf(sizeBytes))) continue;
    if (consumed({ offset, number })) continue;
    if (status === STATUS.reserved) plan.unfinished += 1;
    else plan.damage.push({ offset, number, lengthBytes: sizeBytes, what: 'record gone' });
  }
}

function newestOf(records: readonly RecordHeader[]): number {
  let newest = 0;
  for (const { number } of records) if (number > newest) newest = number;
  return newest;
}

function nextGeneration(seen: number, image: IndexImage | undefined): number {
  const counted = image ? Math.floor(image.getWide(FIELD.nextNumber) / NUMBERS_PER_GENERATION) : 0;
  const believed = counted - seen <= MAX_GENERATION_JUMP ? Math.max(seen, counted) : seen;
  return (believed + 1) * NUMBERS_PER_GENERATION;
}
