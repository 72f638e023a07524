import type { Target } from '../../../conformance/target-file/definition.js';
import type { StateDisk } from '../../../faults/crash-states/state-disk.js';
import { DamagedFilesystemError } from '../../../faults/power/syscalls.js';
import type { CrashState } from '../../../faults/write-log/state.js';

/** What was found in one crash state, in the words of the history. */
export interface Inspection {
  recovered: boolean;
  /** Bits of the messages that it holds, base64. */
  heldBits: string;
  wrongCount: number;
  detail: string;
  /** The filesystem itself could not be mounted, which says nothing about the target: such a state is not judged. */
  unmountable?: true;
}

/** Which bit each message has, by what it is known by: its id, or the SHA-256 of its bytes. */
export type BitByName = ReadonlyMap<string, number>;

/** @param count number of messages that have a bit. */
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

/** Nothing is there, because the target did not get up. */
export function notRecovered(detail: string): Inspection {
  return { recovered: false, heldBits: '', wrongCount: 0, detail };
}

/**
 * Mounts a state. What the kernel refuses is not judged: a torn superblock of ext4 is no fault of the target's.
 * @returns what is found in a state that was refused; undefined when it is mounted.
 * @throws Error when its disk cannot be made, which is the kit's failure.
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

/** A program that restores in less on every other state hangs. */
const MIN_RESTORE_TIMEOUT_S = 10;

/** What was handed out when the time ended may still be answered. */
const GRACE_MS = 1000;

/** So long the target's program that restores is waited for, on one state. */
export function restoreTimeoutMs({ guarantee }: Target): number {
  return Math.max(guarantee.recoverySeconds ?? 0, MIN_RESTORE_TIMEOUT_S) * 1000;
}

/** What a worker is told of that. @param endMs when the states of its way have to be done, as `performance.now()`. */
export function restoreTimeouts(
  target: Target,
  endMs: number,
): { restoreTimeoutMs: number; deadlineEpochMs: number } {
  const leftMs = Math.max(0, endMs - performance.now());
  return { restoreTimeoutMs: restoreTimeoutMs(target), deadlineEpochMs: Date.now() + leftMs + GRACE_MS };
}
