import { checkLists } from '../index/check.js';
import type { IndexImage } from '../index/image.js';
import { ENTRY, STATUS } from '../index/layout.js';
import { isConsumed } from '../index/marks.js';
import type { Kernel } from '../platform/kernel.js';
import { linux } from '../platform/linux.js';
import { extentOf } from '../record/layout.js';
import { keptAsideNames } from '../restore/kept-aside.js';
import { overlapsAny, scan } from '../restore/scan.js';
import type { QueueSettings } from '../settings/settings.js';
import { type PairDirectories, pairPaths } from './paths.js';
import { type Snapshot, withSnapshot } from './snapshot.js';

export interface VerifyReport extends MessageCounts {
  ok: boolean;
  /** One line each, in front the pair. */
  problems: string[];
  /** Damaged records that were kept aside, ever. */
  keptAside: number;
  keptAsideNames: string[];
  /** Messages in the dead-letter queue. */
  dead: number;
}

export interface MessageCounts {
  /** Messages in the queue. */
  live: number;
  /** Messages that a worker is storing right now. */
  reserved: number;
  /** Messages that a worker has locked for delivery. */
  locked: number;
}

const MAX_PROBLEMS = 50;

/**
 * Checks the invariants of every pair [DESIGN 4.5.6]: both lists well formed, every entry on one of them, and the index
 * holding exactly the whole records that were not consumed. Changes nothing; may be asked of a queue in use, whose
 * workers then wait until the data file has been read once, and say that they are busy when that takes them too long.
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

/** What is wrong with one pair, one line each. @param counts is added to. */
export function problemsOf(snapshot: Snapshot, counts: MessageCounts): string[] {
  const compared = compareWithRecords(snapshot, counts);
  return [...checkLists(snapshot.image), ...compared];
}

interface IndexedEntry {
  number: number;
  status: number;
  locked: boolean;
  extent: number;
}

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
    // A record that somebody is writing right now may be found whole, or the one below it.
    const beingWritten = overlapsAny(reserved, record.offset, extentOf(record.sizeBytes));
    // A locked message's mark is set a moment before its entry is released.
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
