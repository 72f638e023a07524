import type { SimMachine } from '../../common/simulation/machine.js';
import { Violation } from '../../common/simulation/violation.js';
import type { Model } from './model.js';
import { listBodies, restore, verifyPair } from './simulated-queue.js';

/** A crash during the restore that follows a crash: a kill, and optionally a power cut after it. */
export interface SecondCrash {
  /** Number of steps of the restore before the kill; 0: no kill. */
  afterSteps: number;
  /** Seed of the power cut; undefined: no power cut. */
  powerSeed: number | undefined;
}

/** Value for a restore without a second crash. */
export const NO_SECOND_CRASH: SecondCrash = { afterSteps: 0, powerSeed: undefined };

/**
 * Restores the queue from a crash state and checks it against the model, which it does not change.
 * @param machine the crash state; it cannot be used afterwards
 * @param power whether the power was cut
 * @throws Violation when the restored queue violates a requirement
 */
export function checkCrashState(
  machine: SimMachine,
  model: Model,
  power: boolean,
  { afterSteps, powerSeed }: SecondCrash,
): void {
  const powerCut = power || (afterSteps > 0 && powerSeed !== undefined);
  const first = restore(machine, afterSteps, powerSeed);
  verifyPair(first.pair);
  const bodies = listBodies(first.pair);
  const present = new Set(bodies.map((body) => model.identify(body, powerCut)));
  if (present.size < bodies.length) throw new Violation('PP-2', 'a message is in the restored queue twice');
  model.check(present);
  first.process.terminate();
  const second = restore(first.machine, 0, undefined);
  const again = listBodies(second.pair);
  const same =
    again.length === bodies.length && again.every((body, at) => bodies[at]?.data.equals(body.data));
  if (!same) throw new Violation('PP-9', 'restoring twice gives something else than once');
  verifyPair(second.pair);
  second.process.terminate();
}
