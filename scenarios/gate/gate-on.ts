import { madeBy } from '../runtime/power-backends.js';
import { type GateOptions, runGate } from './gate.js';
import type { GateResult } from './result.js';
import { selectFaults } from './select.js';

/** A gate whose faults are still to be chosen: those that the target claims, narrowed to `wanted`. */
export type WantedGate = Omit<GateOptions, 'selection'> & { wanted: readonly string[] | undefined };

/** Chooses the faults, runs the gate, and gives back what its runtime has taken. */
export async function gateOn({ wanted, ...options }: WantedGate): Promise<GateResult> {
  const { target, runtime, power } = options;
  try {
    const selection = await selectFaults(target, wanted, {
      offers: (fault) => runtime.offers(fault),
      makes: runtime.makes ?? madeBy(power),
    });
    return await runGate({ ...options, selection });
  } finally {
    await runtime.close?.();
  }
}
