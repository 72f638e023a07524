import type { Kernel } from '../../common/platform/kernel.js';
import { linux } from '../../common/platform/linux.js';
import { checkLists } from '../index/check.js';
import type { IndexImage } from '../index/image.js';
import { ENTRY, STATUS } from '../index/layout.js';
import { isConsumed } from '../index/marks.js';
import { extentOf } from '../record/layout.js';
import { keptAsideNames } from '../restore/kept-aside.js';
import { overlapsAny, scan } from '../restore/scan.js';
import type { QueueSettings } from '../settings/settings.js';
import { type PairDirectories, pairPaths } from './paths.js';
import { type Snapshot, withSnapshot } from './snapshot.js';

/** Result of `verifyQueue`. */
export interface VerifyReport extends MessageCounts {
  ok: boolean;
  /** Broken invariants, one line each. A line starts with the name of the pair. */
  problems: string[];
  /** Number of damaged records that were ever kept aside. */
  keptAside: number;
  /** File names of all damaged records that were ever kept aside. */
  keptAsideNames: string[];
  /** Messages in the dead-letter queue. */
  dead: number;
}

/** Numbers of messages by state. */
export interface MessageCounts {
  /** Messages in the queue. */
  live: number;
  /** Messages that a worker is storing and has not confirmed yet. */
  reserved: number;
  /** Messages that a worker has locked for delivery. */
  locked: number;
}

/** Largest number of problems in a report. */
const MAX_PROBLEMS = 50;

/**
 * Checks the invariants of every pair:
 *
 * - Both lists are well formed, and every entry is on one of them.
 * - The index holds exactly the whole records that are not consumed.
 *
 * The check changes nothing and works on a queue in use. The queue's workers then wait while the data file is
 * read once. If that takes longer than their timeout, they reject messages with `mutex-held`.
 *
 * @throws QueueError `mutex-held` when another process holds a pair for too long; `damaged-queue` when a pair
 * has no usable index.
 */
export async function verifyQueue(settings: QueueSettings, kernel: Kernel = linux): Promise<VerifyReport> {
  const counts = (): MessageCounts => ({ live: 0, reserved: 0, locked: 0 });
  const queue = counts();
  const dead = counts();
  const problems: string[] = [];
  const keptAside: string[] = [];
  const inspectPair = (name: string, pair: PairDirectories, into: MessageCounts): void => {
    const pairProblems = withSnapshot(pair, (snapshot) => problemsOf(snapshot, into), kernel);
    problems.push(...pairProblems.map((line) => `${name}: ${line}`));
    keptAside.push(...keptAsideNames(kernel, pairPaths(pair).keptAside));
  };
  for (const [number, pair] of settings.pairs.entries()) inspectPair(`pair ${number}`, pair, queue);
  const { directory } = settings.deadLetter;
  inspectPair('dead letters', { directory, indexDirectory: directory }, dead);
  return {
    ok: problems.length === 0,
    problems: problems.slice(0, MAX_PROBLEMS),
    keptAside: keptAside.length,
    keptAsideNames: keptAside,
    ...queue,
    dead: dead.live,
  };
}

/**
 * Returns the broken invariants of one pair, one line each.
 * @param counts receives the numbers of messages: the function adds to them.
 */
export function problemsOf(snapshot: Snapshot, counts: MessageCounts): string[] {
  const compared = compareWithRecords(snapshot, counts);
  return [...checkLists(snapshot.image), ...compared];
}

/** An entry in use, as the index describes it. */
interface IndexedEntry {
  number: number;
  status: number;
  locked: boolean;
  /** Size of the record in bytes, rounded up to a multiple of 256 bytes (the size of a slot). */
  extent: number;
}

/**
 * Returns the index entries that are in use, keyed by the offsets of their records in the data file. Adds the
 * number of entries in each state to `counts`.
 */
function entriesByOffset(image: IndexImage, counts: MessageCounts): Map<number, IndexedEntry> {
  const held = new Map<number, IndexedEntry>();
  for (let entry = 0; entry < image.geometry.entries; entry += 1) {
    const at = image.entryWord(entry);
    const status = image.get(at + ENTRY.status);
    if (status === STATUS.free) continue;
    const locked = image.get(at + ENTRY.lock) !== 0;
    if (status === STATUS.reserved) counts.reserved += 1;
    else counts.live += 1;
    if (status === STATUS.ready && locked) counts.locked += 1;
    held.set(image.getWide(at + ENTRY.offset), {
      number: image.getWide(at + ENTRY.number),
      status,
      locked,
      extent: extentOf(image.get(at + ENTRY.length)),
    });
  }
  return held;
}

/**
 * Compares the index with the records in the data file. Returns the differences, one line each. Adds the number
 * of index entries in each state to `counts`.
 */
function compareWithRecords({ data, ring, key, image }: Snapshot, counts: MessageCounts): string[] {
  const problems: string[] = [];
  const held = entriesByOffset(image, counts);
  const reserved = [...held]
    .filter(([, entry]) => entry.status === STATUS.reserved)
    .map(([offset, { extent, number }]) => ({ offset, number, sizeBytes: extent, type: 0, dateMs: 0 }))
    .sort((a, b) => a.offset - b.offset);
  const valid = scan(data, ring, key).valid;
  for (const record of valid) {
    const entry = held.get(record.offset);
    const known = entry?.number === record.number;
    if (known && entry.status === STATUS.ready) held.delete(record.offset);
    // Do not report a record that a worker is writing at this moment, or an older record below it: each may
    // look whole.
    const beingWritten = overlapsAny(reserved, record.offset, extentOf(record.sizeBytes));
    // Do not report a locked message that is marked as consumed: its entry is released a moment after the
    // mark is set.
    const consumed = isConsumed(image, key, record.offset, record.number);
    if (consumed && known && !entry.locked)
      problems.push(`message ${record.number} is consumed and still listed`);
    if (!consumed && !known && !beingWritten) {
      problems.push(
        `message ${record.number} at ${record.offset} is whole, not consumed, and not in the index`,
      );
    }
  }
  for (const [offset, { number, status }] of held) {
    if (status === STATUS.reserved) continue;
    problems.push(`the index lists message ${number} at ${offset}, where no such whole record is`);
  }
  return problems;
}
