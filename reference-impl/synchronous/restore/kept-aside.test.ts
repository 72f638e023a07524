import t from 'tap';
import { MemoryData } from '../platform/memory-data.js';
import { SimMachine } from '../simulation/machine.js';
import { SimProcess } from '../simulation/simulated-queue.js';
import { keepAside, keptAsideName, keptAsideNames } from './kept-aside.js';
import type { Damage } from './plan.js';

const DIRECTORY = '/queue/kept-aside';
const DAMAGE: Damage = { offset: 512, lengthBytes: 300, number: 2 ** 32, what: 'data' };

/** A machine with the directory of a queue on its disk. */
function machineWithQueue(): SimMachine {
  const machine = new SimMachine(() => 0);
  for (const path of ['/', '/queue'])
    machine.changeNames({ change: 'add', path, node: { kind: 'directory' } });
  machine.syncNames('/');
  return machine;
}

/** @returns whether it came to its end: a process that is killed in front of its n-th step (0: of none) may not. */
function keeps(machine: SimMachine, diesIn = 0): boolean {
  const process = new SimProcess(machine, 'restorer');
  if (diesIn > 0) process.lifetime.killAfter(diesIn);
  try {
    keepAside(process.kernel, DIRECTORY, new MemoryData(1024), DAMAGE);
    return true;
  } catch {
    return false;
  } finally {
    process.terminate();
  }
}

t.test('what one that was killed has half kept is on the disk when the next one has kept it', async (t) => {
  let deaths = 0;
  for (let steps = 1; ; steps += 1) {
    const machine = machineWithQueue();
    const ended = keeps(machine, steps);
    if (ended) break;
    deaths += 1;
    t.equal(keeps(machine), true);
    const { kernel } = new SimProcess(machine.afterPowerCut(0), 'reader');
    t.same(keptAsideNames(kernel, DIRECTORY), [keptAsideName(DAMAGE)], `killed after ${steps} steps`);
  }
  t.ok(deaths > 10, `it was killed at ${deaths} places`);
});
