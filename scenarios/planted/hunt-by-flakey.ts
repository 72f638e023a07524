import { POWER_BACKENDS } from '../runtime/power-backends.js';
import { gateRun, judgeGate, type PowerOf } from './hunt-by-gate.js';
import { type HuntOptions, type ModeResult, notMeasured, type PlantedCopy } from './mode.js';

/** There is one lab VM, and its containers are one target's. */
let turn: Promise<unknown> = Promise.resolve();

/**
 * The gate with power cuts by dm-flakey: on this machine's kernel where that has it, else in the lab VM, which must be up.
 * Only what nothing but a power cut shows is looked for: the rest does not depend on how the power is cut.
 */
export async function huntByFlakey({ bug, target }: PlantedCopy, options: HuntOptions): Promise<ModeResult> {
  if (bug.shownBy !== 'power') return notMeasured(options.seed, 'it takes no power cut to show it');
  const run = turn.then(async () => gateRun(target, ['power-cut'], options, await placeOfFlakey()));
  turn = run.catch(() => undefined);
  return judgeGate(bug, await run, options.seed);
}

async function placeOfFlakey(): Promise<PowerOf> {
  const here = await POWER_BACKENDS.find(({ name }) => name === 'flakey')?.available();
  return { runtime: here?.available ? 'process' : 'vm', backend: 'flakey' };
}
