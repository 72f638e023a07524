import type { CrashModel } from '../../faults/crash-states/model.js';
import { type CrashState, formatNumbers, NOTHING_TORN } from '../../faults/crash-states/state.js';
import { ddmin } from './ddmin.js';

/** A write that is not on the medium, or of which only some sectors are. */
interface Missing {
  entry: number;
  sectors: readonly number[] | undefined;
}

/**
 * The crash state with the fewest writes missing that still fails, at the same cut; deterministic, as the states are.
 * @param fails whether the target, started on the disk of a state, has lost what it had confirmed.
 * @param spent true when there is no time for one more state.
 */
export async function shrinkState(
  model: CrashModel,
  state: CrashState,
  fails: (smaller: CrashState) => Promise<boolean>,
  spent: () => boolean = () => false,
): Promise<CrashState> {
  const part = (missing: readonly Missing[]) => stateWithout(model, state, missing);
  const none = part([]);
  if (await fails(none)) return none;
  return part(await ddmin(missingIn(model, state), (some) => fails(part(some)), spent));
}

/** Entries of the writes that a state lacks, whole or in part; ascending. */
export function missingWrites(model: CrashModel, state: CrashState): number[] {
  return missingIn(model, state).map(({ entry }) => entry);
}

function missingIn(model: CrashModel, { prefix, kept, torn }: CrashState): Missing[] {
  const there = new Set(kept);
  return model
    .optional(prefix)
    .filter((entry) => !there.has(entry))
    .map((entry) => ({ entry, sectors: torn.get(entry) }));
}

/** Everything that was complete is there but for these; the write under way stays as it was. */
function stateWithout(model: CrashModel, state: CrashState, missing: readonly Missing[]): CrashState {
  const { prefix } = state;
  const lacks = new Set(missing.map(({ entry }) => entry));
  const torn = new Map(
    missing.flatMap(({ entry, sectors }) => (sectors === undefined ? [] : [[entry, sectors] as const])),
  );
  const begun = state.torn.get(prefix);
  if (begun !== undefined) torn.set(prefix, begun);
  const kept = model.optional(prefix).filter((entry) => !lacks.has(entry));
  if (state.kept.at(-1) === prefix) kept.push(prefix);
  return { prefix, kept, torn: torn.size === 0 ? NOTHING_TORN : torn };
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
