import { QueueError } from '../../common/platform/errors.js';
import type { Kernel } from '../../common/platform/kernel.js';
import { type ControlEntry, readControl } from '../checkpoint/control.js';
import { countAside } from '../recovery/aside.js';
import { readState, type StoredState } from '../recovery/read-state.js';
import { type InstalledSettings, pathsOf, readSettings } from '../settings.js';

/** What verify reports. */
export interface VerifyReport {
  ok: boolean;
  /** Broken invariants, one line each. */
  problems: string[];
  /** Number of damaged parts that recoveries have kept aside. */
  keptAside: number;
  /** Number of stored messages. */
  live: number;
  checkpoint: number;
}

/** Number of attempts to read a state while a server makes checkpoints. */
const MAX_TRIES = 20;

/**
 * Reads the state of a queue while a server may change it. Between two checkpoints the server overwrites nothing that a recovery
 * reads. So the state is consistent if the same checkpoint is in force before and after. A record that the server is writing may
 * look damaged. It looks intact when the state is read a second time.
 * @throws QueueError `queue-in-use` when checkpoints come faster than the state can be read.
 */
export function readStableState(directory: string, kernel: Kernel): StoredState {
  const settings = readSettings(directory, kernel);
  const state = readBetweenCheckpoints(directory, settings, kernel);
  if (state.damaged.length === 0) return state;
  const names = new Set(state.damaged.map(({ name }) => name));
  const again = readBetweenCheckpoints(directory, settings, kernel);
  return { ...again, damaged: again.damaged.filter(({ name }) => names.has(name)) };
}

function readBetweenCheckpoints(directory: string, settings: InstalledSettings, kernel: Kernel): StoredState {
  const { control } = pathsOf(directory);
  const inForce = () => readControl(kernel, control)?.checkpoint;
  let missing: unknown;
  for (let tries = 0; tries < MAX_TRIES; tries += 1) {
    const before = inForce();
    try {
      const state = readState(directory, settings, kernel);
      if (inForce() === before) return state;
    } catch (error) {
      // The server has renamed a segment or removed a slot. Read again.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      missing = error;
    }
  }
  if (missing !== undefined) throw missing;
  throw new QueueError(
    'queue-in-use',
    `${directory}: checkpoints come faster than the queue can be read: stop the server, or try again`,
  );
}

/**
 * Checks a stored queue, while its server runs or is stopped. Every confirmed record and message must be readable, and the
 * entries of the control record must be valid.
 */
export function verifyQueue(directory: string, kernel: Kernel): VerifyReport {
  const state = readStableState(directory, kernel);
  const problems = state.damaged.filter(({ isConfirmed }) => isConfirmed).map(({ what }) => what);
  if (state.isControlLost) problems.push('control: no copy of the control record can be read');
  problems.push(...problemsOfControl(state.control.queues));
  let live = 0;
  for (const queue of state.queues) {
    const { length } = queue.messages();
    live += length;
    if (queue.id === 0) problems.push(`queue ${queue.definition.name}: its number is 0`);
  }
  const keptAside = countAside(pathsOf(directory).aside, kernel);
  return { ok: problems.length === 0, problems, keptAside, live, checkpoint: state.control.checkpoint };
}

function problemsOfControl(entries: readonly ControlEntry[]): string[] {
  const problems: string[] = [];
  const names = new Set<string>();
  for (const { definition, redo, id } of entries) {
    if (names.has(definition.name)) problems.push(`control: two queues have the name ${definition.name}`);
    names.add(definition.name);
    if (redo < 0 || id <= 0)
      problems.push(`control: queue ${definition.name} has no valid number or position`);
  }
  return problems;
}
