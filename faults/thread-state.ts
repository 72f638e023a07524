import { readdirSync, readFileSync } from 'node:fs';
import { throwIfExhausted } from './exhausted.js';

/**
 * Checks that every thread of a process is in one of the states (letters of /proc/PID/stat), or the process
 * is gone.
 */
export function allThreadsInState(pid: number, states: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).every((thread) => {
      const text = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1');
      return states.includes(text[text.lastIndexOf(')') + 2] ?? '');
    });
  } catch (error) {
    throwIfExhausted(error);
    return true;
  }
}

/** Checks that a thread of a process is in one of the states; false when the process is gone. */
export function hasThreadInState(pid: number, states: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).some((thread) => {
      const text = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1');
      return states.includes(text[text.lastIndexOf(')') + 2] ?? '?');
    });
  } catch (error) {
    throwIfExhausted(error);
    return false;
  }
}
