import { type SimulationOptions, type SimulationResult, simulate } from '../../common/simulation/simulate.js';
import { type Operation, operations } from './operations.js';
import { installMachine } from './simulated-queue.js';
import { SimulatedRun } from './simulated-run.js';

/** Simulates the synchronous queue (see `simulate`). */
export async function simulateSynchronous(options: SimulationOptions): Promise<SimulationResult<Operation>> {
  const installed = await installMachine();
  return simulate({ operations, createRun: (log) => new SimulatedRun(installed, log) }, options);
}
