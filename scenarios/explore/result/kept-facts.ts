import type { CrashModel } from '../../../faults/write-log/model.js';
import { formatNumbers } from '../../../faults/write-log/state.js';
import type { CrashStateFacts } from '../../bundle/run-facts.js';
import type { Broken } from '../strategies/strategy-run.js';
import { missingEntries } from './missing-writes.js';

/** Upper bound of the flushes, and of the broken states, that are kept for a report. */
const MAX_KEPT_FLUSHES = 50_000;
const MAX_KEPT_STATES = 300;
/** Upper bound of the missing writes that are kept for one state. */
const MAX_KEPT_WRITES = 60;

/**
 * Collects what a report shows of the log and of the broken states of the run.
 * @param broken the broken states, the easiest one first.
 * @param ownersOf returns the files to which writes belong, by entry.
 */
export function factsOf(
  model: CrashModel,
  from: number,
  broken: readonly Broken[],
  ownersOf: (entries: readonly number[]) => ReadonlyMap<number, string>,
): CrashStateFacts {
  const kept = broken.slice(0, MAX_KEPT_STATES).map(({ address, state }) => ({
    address,
    position: state.prefix,
    missingWrites: missingEntries(model, state).slice(0, MAX_KEPT_WRITES),
  }));
  const missing = [...new Set(kept.flatMap(({ missingWrites }) => missingWrites))];
  const owners = missing.length === 0 ? new Map() : ownersOf(missing.sort((one, other) => one - other));
  return {
    entries: model.entries.length,
    from,
    flushes: model.entries
      .filter(({ flush, index }) => flush && index >= from)
      .slice(0, MAX_KEPT_FLUSHES)
      .map(({ index }) => index),
    broken: kept.map((state) => ({ ...state, files: filesOfWrites(state.missingWrites, owners) })),
    cause: null,
  };
}

/** Groups writes by the file to which they belong. */
function filesOfWrites(
  writes: readonly number[],
  owners: ReadonlyMap<number, string>,
): { file: string; what: string }[] {
  const byFile = new Map<string, number[]>();
  for (const entry of writes) {
    const file = owners.get(entry) ?? NO_FILE;
    byFile.set(file, [...(byFile.get(file) ?? []), entry]);
  }
  return [...byFile].map(([file, entries]) => ({
    file,
    what: `entr${entries.length === 1 ? 'y' : 'ies'} ${formatNumbers(entries)} of the log missing`,
  }));
}

/** Name for the owner of a write that belongs to no file: names and sizes of files are written there. */
const NO_FILE = 'the filesystem (names, sizes) or a removed file';
