import t from 'tap';
import { MemoryData } from '../../common/platform/fixtures/memory-data.js';
import { SimMachine } from '../../common/simulation/machine.js';
import { QueueProcess } from '../simulation/simulated-queue.js';
import { keepAside, keptAsideName, keptAsideNames } from './kept-aside.js';
import type { Damage } from './plan.js';

const DIRECTORY = '/queue/kept-aside';
const DAMAGE: Damage = { offset: 512, lengthBytes: 300, number: 2 ** 32, what: 'data' };

/** Makes a machine that has the directory of a queue on its disk. */
function machineWithQueue(): SimMachine {
  const machine = new SimMachine(() => 0);
  for (const path of ['/', '/queue'])
    machine.changeNames({ change: 'add', path, node: { kind: 'directory' } });
  machine.syncNames('/');
  return machine;
}

/**
 * Saves the damaged record in a process that is killed just before its step `diesIn` (0: never).
 *
 * @returns whether the process finished.
 */
function keeps(machine: SimMachine, diesIn = 0): boolean {
  const process = new QueueProcess(machine, 'restorer');
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

t.test('the next process saves a damaged record on the disk, wherever the first one died', async (t) => {
  let deaths = 0;
  for (let steps = 1; ; steps += 1) {
    const machine = machineWithQueue();
    const ended = keeps(machine, steps);
    if (ended) break;
    deaths += 1;
    t.equal(keeps(machine), true);
    const { kernel } = new QueueProcess(machine.afterPowerCut(0), 'reader');
    t.same(keptAsideNames(kernel, DIRECTORY), [keptAsideName(DAMAGE)], `killed after ${steps} steps`);
  }
  t.ok(deaths > 10, `the process was killed at ${deaths} steps`);
});
