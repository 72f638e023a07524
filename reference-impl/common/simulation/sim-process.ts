import type { SimMachine } from './machine.js';
import { ProcessLifetime } from './process-lifetime.js';
import { SimKernel } from './sim-kernel.js';

/** A simulated process on a machine. */
export class SimProcess {
  readonly name: string;
  readonly lifetime = new ProcessLifetime();
  readonly kernel: SimKernel;

  constructor(machine: SimMachine, name: string) {
    this.name = name;
    this.kernel = new SimKernel(machine, this.lifetime, name);
  }

  /** Kills the process and closes its files. */
  terminate(): void {
    this.lifetime.alive = false;
    this.kernel.release();
  }
}
