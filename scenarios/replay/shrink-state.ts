import type { CrashModel } from '../../faults/write-log/model.js';
import { type CrashState, NOTHING_TORN } from '../../faults/write-log/state.js';
import { findMissingWrites, type MissingWrite } from '../explore/result/missing-writes.js';
import { ddmin } from './ddmin.js';

/**
 * Finds the crash state with the fewest missing writes that still fails, at the same cut. The search is
 * deterministic, because a crash state is.
 * @param fails reports whether the target, started on the disk of a state, has lost confirmed messages.
 * @param isOutOfTime true when there is no time for another state.
 */
export async function shrinkState(
  model: CrashModel,
  state: CrashState,
  fails: (smaller: CrashState) => Promise<boolean>,
  isOutOfTime: () => boolean = () => false,
): Promise<CrashState> {
  const part = (missing: readonly MissingWrite[]) => stateWithout(model, state, missing);
  const none = part([]);
  if (await fails(none)) return none;
  return part(await ddmin(findMissingWrites(model, state), (some) => fails(part(some)), isOutOfTime));
}

/**
 * Returns a state in which, of the complete writes, exactly `missing` are missing. The write at the cut stays
 * as it was.
 */
function stateWithout(model: CrashModel, state: CrashState, missing: readonly MissingWrite[]): CrashState {
  const { prefix } = state;
  const missingEntries = new Set(missing.map(({ entry }) => entry));
  const torn = new Map(
    missing.flatMap(({ entry, sectors }) => (sectors === undefined ? [] : [[entry, sectors] as const])),
  );
  const tornAtCut = state.torn.get(prefix);
  if (tornAtCut !== undefined) torn.set(prefix, tornAtCut);
  const kept = model.optional(prefix).filter((entry) => !missingEntries.has(entry));
  if (state.kept.at(-1) === prefix) kept.push(prefix);
  return { prefix, kept, torn: torn.size === 0 ? NOTHING_TORN : torn };
}
