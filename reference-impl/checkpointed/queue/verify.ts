import type { Kernel } from '../../common/platform/kernel.js';
import { type ControlEntry, readControl } from '../checkpoint/control.js';
import { countAside } from '../recovery/aside.js';
import { readState, type StoredState } from '../recovery/read-state.js';
import { pathsOf, readSettings } from '../settings.js';

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
 * Reads the state of a queue that a server may be changing. Between two checkpoints nothing that a recovery reads is
 * overwritten: the state is consistent when the same checkpoint is in force before and after.
 */
export function readStableState(directory: string, kernel: Kernel): StoredState {
  const settings = readSettings(directory, kernel);
  const { control } = pathsOf(directory);
  const inForce = () => readControl(kernel, control)?.checkpoint;
  let state: StoredState;
  let before: number | undefined;
  let tries = 0;
  do {
    before = inForce();
    state = readState(directory, settings, kernel);
    tries += 1;
  } while (inForce() !== before && tries < MAX_TRIES);
  return state;
}

/**
 * Checks a stored queue, while its server runs or is stopped: every confirmed record and message can be read, and what a
 * recovery would restore is in order.
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
