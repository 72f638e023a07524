import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';

/** Waits, or until the signal is aborted: then it returns at once, and the caller goes on to unwind. */
export async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted || ms <= 0) return;
  await delay(ms, undefined, { signal }).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}

/** Stops this process for a while, events and all: for what has to be done in one go, at an exit too. */
export function sleepSync(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/**
 * Asks again and again whether `condition` holds; false when it did not within `timeoutMs` or was aborted. For what
 * the kernel gives no event for: processes that are not our children, files that other programs write.
 */
export async function until(
  condition: () => boolean | Promise<boolean>,
  timeoutMs: number,
  signal?: AbortSignal,
  intervalMs = 4,
): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    if (await condition()) return true;
    if (signal?.aborted === true) return false;
    if (performance.now() >= deadline) break;
    await delay(intervalMs);
    // Timers go on one after the other as long as one is due, and where conditions take longer than the pause one always
    // is: two waits at a time would keep every other event from being read, the one that they wait for too.
    await turn();
  }
  // The time may have gone by in a call that blocked this process, with the event that is waited for still unread.
  await processPendingEvents();
  return condition();
}

/** Lets what has happened by now be read, signals too: events are read between two turns. */
export async function processPendingEvents(): Promise<void> {
  await turn();
  await turn();
}
