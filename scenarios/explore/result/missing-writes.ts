import type { CrashModel } from '../../../faults/write-log/model.js';
import { type CrashState, formatNumbers } from '../../../faults/write-log/state.js';

/** A write that is not on the medium, or of which only some sectors are on the medium. */
export interface MissingWrite {
  /** Number of the entry in the log. */
  entry: number;
  /** Sectors of 512 bytes that are on the medium, from the beginning of the write; undefined: none. */
  sectors: readonly number[] | undefined;
}

/** Returns the entry numbers of the writes that a state lacks, as a whole or in part; ascending. */
export function missingEntries(model: CrashModel, state: CrashState): number[] {
  return findMissingWrites(model, state).map(({ entry }) => entry);
}

/** Returns the unflushed writes that a state lacks, as a whole or in part; ascending by entry. */
export function findMissingWrites(model: CrashModel, { prefix, kept, torn }: CrashState): MissingWrite[] {
  const onMedium = new Set(kept);
  return model
    .optional(prefix)
    .filter((entry) => !onMedium.has(entry))
    .map((entry) => ({ entry, sectors: torn.get(entry) }));
}

/** Describes in one line where the power was cut and which writes are missing. */
export function describeState(model: CrashModel, state: CrashState): string {
  const missing = findMissingWrites(model, state);
  const flushed = model.durablePrefixOf(state);
  const cut = `cut after ${state.prefix} requests to the disk, the last flush was entry ${flushed}`;
  if (missing.length === 0) return `${cut}; every write that was complete had reached the medium`;
  const whole = missing.filter(({ sectors }) => sectors === undefined).map(({ entry }) => entry);
  const torn = missing.filter(({ sectors }) => sectors !== undefined).map(({ entry }) => entry);
  const parts = [
    ...(whole.length > 0 ? [`not yet flushed and gone: ${formatNumbers(whole)}`] : []),
    ...(torn.length > 0 ? [`torn: ${formatNumbers(torn)}`] : []),
  ];
  return `${cut}; ${parts.join('; ')}`;
}
