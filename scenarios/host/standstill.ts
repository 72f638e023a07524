import { threadsAreIn } from '../../faults/stopped.js';
import { pauseNow } from '../../faults/waiting.js';

const STANDING = 'TtZX';
/** A machine under load lets a process wait that long before it comes to its own stop. */
const LONGEST_WAIT_MS = 2000;
/** Who waits for a disk makes no children meanwhile, and may wait for ever: a cut stops the disk first. */
const LONGEST_DISK_WAIT_MS = 20;
/** Of processes that are born faster than they are stopped. */
const MOST_LOOKS = 20;
const POLL_MS = 0.5;

/**
 * Stops processes that may be having children, until all of them stand and a look finds nobody new. SIGSTOP is no fence: one
 * that is in the middle of fork() when it comes goes through with it, however late, and its child starts running; so
 * nobody is looked for again before those that were found stand.
 * @param areIn whether every thread is in one of these states (letters of /proc/PID/stat), or the process is gone.
 * @returns all that were stopped.
 */
export function standstill(
  look: () => readonly number[],
  stop: (pid: number) => void,
  areIn: (pid: number, states: string) => boolean = threadsAreIn,
): Set<number> {
  const stopped = new Set<number>();
  for (let looks = 0; looks < MOST_LOOKS; looks++) {
    const fresh = look().filter((pid) => !stopped.has(pid));
    if (fresh.length === 0) break;
    for (const pid of fresh) {
      stop(pid);
      stopped.add(pid);
    }
    // From here on: on a busy machine the look alone may have taken longer.
    const stopMs = performance.now();
    for (const pid of fresh) {
      for (;;) {
        const waitedMs = performance.now() - stopMs;
        if (waitedMs > LONGEST_WAIT_MS || areIn(pid, STANDING)) break;
        if (waitedMs > LONGEST_DISK_WAIT_MS && areIn(pid, `${STANDING}D`)) break;
        pauseNow(POLL_MS);
      }
    }
  }
  return stopped;
}
