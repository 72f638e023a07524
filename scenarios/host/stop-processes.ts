import { allThreadsInState } from '../../faults/thread-state.js';
import { sleepSync } from '../../faults/waiting.js';

const STOPPED_STATES = 'TtZX';
/** A machine under load lets a process wait that long before it comes to its own stop. */
const MAX_STOP_WAIT_MS = 2000;
/** Who waits for a disk makes no children meanwhile, and may wait for ever: a cut stops the disk first. */
const MAX_DISK_WAIT_MS = 20;
/** Of processes that are born faster than they are stopped. */
const MAX_SCANS = 20;
const POLL_MS = 0.5;

/**
 * Stops processes that may be having children, until all of them stand and a look finds nobody new. SIGSTOP is no fence: one
 * that is in the middle of fork() when it comes goes through with it, however late, and its child starts running; so
 * nobody is looked for again before those that were found stand.
 * @param allThreadsIn whether every thread is in one of these states (letters of /proc/PID/stat), or the process is gone.
 * @returns all that were stopped.
 */
export function stopProcesses(
  listPids: () => readonly number[],
  stop: (pid: number) => void,
  allThreadsIn: (pid: number, states: string) => boolean = allThreadsInState,
): Set<number> {
  const stopped = new Set<number>();
  for (let scans = 0; scans < MAX_SCANS; scans++) {
    const newPids = listPids().filter((pid) => !stopped.has(pid));
    if (newPids.length === 0) break;
    for (const pid of newPids) {
      stop(pid);
      stopped.add(pid);
    }
    // From here on: on a busy machine the look alone may have taken longer.
    const stopSentMs = performance.now();
    for (const pid of newPids) {
      for (;;) {
        const waitedMs = performance.now() - stopSentMs;
        if (waitedMs > MAX_STOP_WAIT_MS || allThreadsIn(pid, STOPPED_STATES)) break;
        if (waitedMs > MAX_DISK_WAIT_MS && allThreadsIn(pid, `${STOPPED_STATES}D`)) break;
        sleepSync(POLL_MS);
      }
    }
  }
  return stopped;
}
