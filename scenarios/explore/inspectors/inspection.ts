import type { Target } from '../../../conformance/target-file/definition.js';
import type { StateDisk } from '../../../faults/crash-states/state-disk.js';
import { DamagedFilesystemError } from '../../../faults/power/syscalls.js';
import type { CrashState } from '../../../faults/write-log/state.js';

/** The result of the inspection of one crash state. Its fields are those of `StateExplored`. */
export interface Inspection {
  /** False when the target did not recover. */
  recovered: boolean;
  /**
   * Messages that the target held: one bit per submitted id, in order of submit, lowest bit first; base64.
   */
  heldBits: string;
  /**
   * Number of problems: messages that were never submitted in this form, and problems that the target
   * reported.
   */
  wrongCount: number;
  /** Description of the first problem, one line; empty if there is none. */
  detail: string;
  /**
   * True when the filesystem could not be mounted. This proves nothing about the target, so the state is not
   * judged.
   */
  unmountable?: true;
}

/** Number of the bit of each message, by its id or by the SHA-256 of its bytes. */
export type BitByName = ReadonlyMap<string, number>;

/**
 * Makes the inspection of a state in which the target recovered.
 * @param count number of messages that have a bit.
 * @param live names of the messages that the target holds.
 * @param problems problems that the target reported itself.
 */
export function toInspection(
  bits: BitByName,
  count: number,
  live: Iterable<string>,
  problems: readonly string[],
): Inspection {
  const bytes = Buffer.alloc(Math.ceil(count / 8));
  let wrong = 0;
  let first = '';
  for (const name of live) {
    const bit = bits.get(name);
    if (bit === undefined) {
      wrong += 1;
      first ||= `a message of digest ${name.slice(0, 16)}`;
    } else bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) | (1 << (bit & 7));
  }
  wrong += problems.length;
  return {
    recovered: true,
    heldBits: bytes.toString('base64'),
    wrongCount: wrong,
    detail: problems[0] ?? first,
  };
}

/** Makes the inspection of a state in which the target did not recover. */
export function notRecovered(detail: string): Inspection {
  return { recovered: false, heldBits: '', wrongCount: 0, detail };
}

/**
 * Mounts a crash state. A state that the kernel refuses is not judged: a torn superblock of ext4 is not a
 * bug of the target.
 * @returns the inspection of a state that was refused; undefined when the state is mounted.
 * @throws Error when the disk cannot be made, which is a failure of the kit.
 */
export function tryMount(disk: StateDisk, state: CrashState): Inspection | undefined {
  try {
    disk.mount(state);
    return undefined;
  } catch (mountError) {
    if (mountError instanceof DamagedFilesystemError)
      return { ...notRecovered(mountError.message), unmountable: true };
    throw mountError;
  }
}

/** Lower bound of the timeout of a restore program, in seconds. Programs normally need far less. */
const MIN_RESTORE_TIMEOUT_S = 10;

/**
 * Time in milliseconds after the end of a strategy's time in which states that were already given to a worker
 * may still be answered.
 */
const GRACE_MS = 1000;

/** Returns the timeout of the target's restore program for one state, in milliseconds. */
export function restoreTimeoutMs({ guarantee }: Target): number {
  return Math.max(guarantee.recoverySeconds ?? 0, MIN_RESTORE_TIMEOUT_S) * 1000;
}

/**
 * Returns the limits for a worker.
 * @param endMs end of the time of the strategy, in ms of `performance.now()`.
 */
export function restoreTimeouts(
  target: Target,
  endMs: number,
): { restoreTimeoutMs: number; deadlineEpochMs: number } {
  const leftMs = Math.max(0, endMs - performance.now());
  return { restoreTimeoutMs: restoreTimeoutMs(target), deadlineEpochMs: Date.now() + leftMs + GRACE_MS };
}
