import { allThreadsInState } from '../../faults/thread-state.js';
import { sleepSync } from '../../faults/waiting.js';

/** Letters of /proc/PID/stat for a thread that is stopped, traced, a zombie or dead. */
const STOPPED_STATES = 'TtZX';
/** Longest wait for a process to stop: on a machine under load a SIGSTOP can take this long to act. */
const MAX_STOP_WAIT_MS = 2000;
/**
 * Longest wait for a process that waits for a disk. Such a process starts no children meanwhile, and it may
 * wait for ever, because a power cut stops the disk first.
 */
const MAX_DISK_WAIT_MS = 20;
/** Upper bound of the number of scans: children may be born faster than they are stopped. */
const MAX_SCANS = 20;
const POLL_MS = 0.5;

/**
 * Stops processes that may be forking, until all of them have stopped and a scan finds no new one. SIGSTOP
 * does not prevent a fork: a process that gets it in the middle of fork() completes the call, however late,
 * and its child starts to run. Therefore each scan waits until the processes of the scan before it have
 * stopped.
 * @param allThreadsIn reports whether every thread is in one of these states (letters of /proc/PID/stat), or
 * the process is gone.
 * @returns the ids of all stopped processes.
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
    // Start the timeout here: on a busy machine the scan alone may have taken longer than that.
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
