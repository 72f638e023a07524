import { extentOf } from '../record/layout.js';
import type { IndexImage } from './image.js';
import { ENTRY, FIELD, NONE, STATUS } from './layout.js';

/** Upper bound of the reported problems, because a damaged list is broken at thousands of entries at once. */
const MAX_PROBLEMS = 50;

/**
 * Checks that both lists are well formed, and that every entry is on exactly one of them. It only reads, and
 * it ends for any content of the index.
 *
 * @returns one line for each problem, at most `MAX_PROBLEMS`.
 */
export function checkLists(image: IndexImage): string[] {
  const problems: string[] = [];
  const report = (line: string): void => {
    if (problems.length < MAX_PROBLEMS) problems.push(line);
  };
  const seen = new Uint8Array(image.geometry.entries);
  const inUse = checkInUseList(image, seen, report);
  checkFreeList(image, seen, report);
  seen.forEach((times, entry) => {
    if (times === 0) report(`entry ${entry} is on no list`);
  });
  if (inUse.count !== image.get(FIELD.inUse)) {
    report(`the in-use list has ${inUse.count} entries, its count says ${image.get(FIELD.inUse)}`);
  }
  if (inUse.bytes !== image.getWide(FIELD.usedBytes)) {
    report(`records take up ${inUse.bytes} bytes, the count says ${image.getWide(FIELD.usedBytes)}`);
  }
  return problems;
}

const exists = (image: IndexImage, entry: number): boolean => entry >= 0 && entry < image.geometry.entries;

function checkInUseList(
  image: IndexImage,
  seen: Uint8Array,
  report: (line: string) => void,
): { count: number; bytes: number } {
  let count = 0;
  let bytes = 0;
  let wraps = 0;
  let previous = NONE;
  let end = 0;
  for (let entry = image.get(FIELD.head); entry !== NONE; ) {
    if (!exists(image, entry) || seen[entry] !== 0) {
      report(
        `the in-use list leads from ${previous} to ${entry}, ${exists(image, entry) ? 'which it has passed' : 'no entry'}`,
      );
      return { count, bytes };
    }
    seen[entry] = 1;
    const at = image.entryWord(entry);
    if (image.get(at + ENTRY.previous) !== previous)
      report(`entry ${entry}: its previous is not ${previous}`);
    if (image.get(at + ENTRY.status) === STATUS.free) report(`entry ${entry} is in use and marked free`);
    const offset = image.getWide(at + ENTRY.offset);
    const extent = extentOf(image.get(at + ENTRY.length));
    if (offset < end) wraps += 1;
    if (wraps > 1)
      report(`entry ${entry} at ${offset} lies before its predecessor a second time around the ring`);
    end = offset + extent;
    count += 1;
    bytes += extent;
    previous = entry;
    entry = image.get(at + ENTRY.next);
  }
  if (image.get(FIELD.tail) !== previous)
    report(`the tail is ${image.get(FIELD.tail)}, the last entry is ${previous}`);
  return { count, bytes };
}

function checkFreeList(image: IndexImage, seen: Uint8Array, report: (line: string) => void): void {
  let previous = NONE;
  for (let entry = image.get(FIELD.free); entry !== NONE; ) {
    if (!exists(image, entry) || seen[entry] !== 0) {
      report(
        `the free list leads from ${previous} to ${entry}, ${exists(image, entry) ? 'which is on a list' : 'no entry'}`,
      );
      return;
    }
    seen[entry] = 1;
    const at = image.entryWord(entry);
    if (image.get(at + ENTRY.status) !== STATUS.free) report(`entry ${entry} is free and not marked so`);
    previous = entry;
    entry = image.get(at + ENTRY.next);
  }
}
