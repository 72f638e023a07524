import { type SimulationOptions, type SimulationResult, simulate } from '../../common/simulation/simulate.js';
import { type Operation, operations } from './operations.js';
import { SimulatedRun } from './simulated-run.js';
import { installMachine } from './simulated-server.js';

/** Simulates the checkpointed queue (see `simulate`). */
export async function simulateCheckpointed(options: SimulationOptions): Promise<SimulationResult<Operation>> {
  const installed = await installMachine();
  return simulate({ operations, createRun: (log) => new SimulatedRun(installed, log) }, options);
}
