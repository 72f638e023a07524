import type { CrashModel } from '../../../faults/write-log/model.js';
import { type CrashState, formatNumbers } from '../../../faults/write-log/state.js';

/** A write that is not on the medium, or of which only some sectors are. */
export interface Missing {
  entry: number;
  sectors: readonly number[] | undefined;
}

/** Entries of the writes that a state lacks, whole or in part; ascending. */
export function missingWrites(model: CrashModel, state: CrashState): number[] {
  return missingIn(model, state).map(({ entry }) => entry);
}

export function missingIn(model: CrashModel, { prefix, kept, torn }: CrashState): Missing[] {
  const there = new Set(kept);
  return model
    .optional(prefix)
    .filter((entry) => !there.has(entry))
    .map((entry) => ({ entry, sectors: torn.get(entry) }));
}

/** What a cut at this state took, in one line. */
export function tellState(model: CrashModel, state: CrashState): string {
  const missing = missingIn(model, state);
  const flushed = model.floorOf(state);
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
