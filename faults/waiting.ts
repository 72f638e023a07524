import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';

/**
 * Waits for `ms` milliseconds. If the signal is aborted it returns at once and does not throw, so the caller
 * can unwind.
 */
export async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted || ms <= 0) return;
  await delay(ms, undefined, { signal }).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}

/** Blocks this process, event loop included, for `ms` milliseconds. It can be called from an exit handler. */
export function sleepSync(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/**
 * Polls `condition` until it holds. Resolves to false when it did not hold within `timeoutMs`, or when the
 * signal was aborted. Use it where the kernel gives no event: for processes that are not our children, and
 * for files that other programs write.
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
    // The event loop runs timers as long as one is due. If two waits run at once and their conditions take
    // longer than the interval, a timer is always due. Without this turn no other event would be read,
    // including the awaited one.
    await turn();
  }
  // The time may have passed in a call that blocked this process, while the awaited event is still unread.
  await processPendingEvents();
  return condition();
}

/**
 * Lets the event loop read all pending events, including signals. It waits for two turns of the loop, because
 * the loop reads events between two turns.
 */
export async function processPendingEvents(): Promise<void> {
  await turn();
  await turn();
}
