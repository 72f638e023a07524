import type { SimMachine } from '../../common/simulation/machine.js';
import { SimProcess } from '../../common/simulation/sim-process.js';
import { Violation } from '../../common/simulation/violation.js';
import { verifyQueue } from '../queue/verify.js';
import type { FoundQueue, Model } from './model.js';
import { DIRECTORY, recover } from './simulated-server.js';

/** What happens to the recoveries of a crash state. */
export interface LaterCrashes {
  /** Number of steps of the first recovery before it is killed; 0: no kill. */
  afterSteps: number;
  /** Seed of a power cut after this kill; undefined: no power cut. */
  powerSeed: number | undefined;
  /** Whether the files are verified when the queue is ready. */
  isVerified: boolean;
  /** Seed of a power cut when the queue is ready; undefined: a kill. */
  readySeed: number | undefined;
}

/** Value for one recovery and a kill after it. */
export const NO_LATER_CRASH: LaterCrashes = {
  afterSteps: 0,
  powerSeed: undefined,
  isVerified: true,
  readySeed: undefined,
};

/**
 * Recovers the queue from a crash state, checks it against the model, which it does not change, and recovers it again.
 * @param machine the crash state; it cannot be used afterwards
 * @throws Violation when the recovered queue violates a requirement
 */
export async function checkCrashState(machine: SimMachine, model: Model, later: LaterCrashes): Promise<void> {
  const first = await recover(machine, later.afterSteps, later.powerSeed);
  model.check(first.found);
  if (later.isVerified) checkFiles(first.machine, first.found);
  first.server.terminate();
  const crashed =
    later.readySeed === undefined ? first.machine : first.machine.afterPowerCut(later.readySeed);
  const second = await recover(crashed, 0, undefined);
  second.server.terminate();
  model.check(second.found);
  const difference = differenceOf(first.found, second.found);
  if (difference)
    throw new Violation('PP-9', `recovering twice gives something else than once: ${difference}`);
}

/** Checks the files of a queue that is ready with the queue's own code. @throws Violation PP-9 */
export function checkFiles(machine: SimMachine, found: readonly FoundQueue[]): void {
  const observer = new SimProcess(machine, 'verify');
  const { problems, live } = verifyQueue(DIRECTORY, observer.kernel);
  observer.terminate();
  if (problems[0] !== undefined) throw new Violation('PP-9', `verify reports: ${problems[0]}`);
  const messages = found.reduce((sum, queue) => sum + queue.messages.length, 0);
  if (live !== messages)
    throw new Violation(
      'PP-9',
      `verify counts ${live} messages in the files, and the server has ${messages}`,
    );
}

function differenceOf(first: readonly FoundQueue[], second: readonly FoundQueue[]): string | undefined {
  const one = describe(first);
  const other = describe(second);
  return one === other ? undefined : `${one}, then ${other}`;
}

/** Returns a text that is the same for the same contents. The bodies follow from the ids, which `check` has checked. */
const describe = (found: readonly FoundQueue[]): string =>
  found
    .map(({ name, order, messages }) => `${name} ${order} [${messages.map(({ id }) => id).join(' ')}]`)
    .join(', ');
