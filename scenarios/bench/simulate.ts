import { execa } from 'execa';
import { programOf } from './programs.js';

/** What the simulation of the queue in memory gets done; it is one process on one core. */
export interface SimulationFigures {
  verdict: string;
  crashes: number;
  crashesPerSecond: number;
  /** Per second of processor time, which other processes on the machine do not change. */
  crashesPerCpuSecond: number;
}

/** Simulates with a seed that is always the same. */
export async function measureSimulation(seconds: number): Promise<SimulationFigures> {
  const { stdout } = await execa(
    process.execPath,
    [programOf('synchronous/main.js'), 'simulate', '--json', '--seed', '1', '--budget', `${seconds}s`],
    { reject: false },
  );
  return JSON.parse(stdout) as SimulationFigures;
}
