import { statfsSync } from 'node:fs';
import type { Recorder } from '../../conformance/history/recorder.js';
import { until } from '../../faults/waiting.js';
import type { Ledger } from './workload/ledger.js';

/** After the last expected delivery so long a silence shows that nothing more comes: duplicates, rejected ones. */
const QUIET_MS = 400;
/** So long a silence while deliveries are missing shows that they will not come. Longer than a target's retry. */
const SILENCE_TIMEOUT_MS = 6000;
/** Or so many times what a message of this run has taken before, up to so long: a slow target is slow once more. */
const SLOW_TARGET_FACTOR = 1.5;
const MAX_SILENCE_TIMEOUT_MS = 15_000;
const MAX_DRAIN_MS = 40_000;

/** Waits for what is confirmed and not yet delivered, and a little longer for what should not come. */
export async function drain(ledger: Ledger, recorder: Recorder, signal: AbortSignal): Promise<void> {
  const startMs = performance.now();
  ledger.lastActivityMs = startMs;
  const silenceTimeoutMs = () =>
    Math.min(MAX_SILENCE_TIMEOUT_MS, Math.max(SILENCE_TIMEOUT_MS, SLOW_TARGET_FACTOR * ledger.maxWaitMs));
  const complete = await until(
    () =>
      performance.now() - ledger.lastActivityMs >=
      (ledger.tally.outstanding > 0 ? silenceTimeoutMs() : QUIET_MS),
    MAX_DRAIN_MS,
    signal,
    20,
  );
  recorder.record({
    kind: 'drained',
    waitedMs: Math.round(performance.now() - startMs),
    complete: complete && !signal.aborted,
  });
}

const MIN_FREE_BYTES = 1024 ** 3;
const MIN_FREE_SHARE = 0.25;
const FREE_SPACE_POLL_MS = 25;

/**
 * Watches the room that is left where a round works, and calls `onFull` once, before the last of it is gone: a target
 * that fills the disk must not take the kit's own evidence, or its host, with it.
 * @param path any path on that filesystem.
 */
export function watchFreeSpace(path: string, onFull: (freeText: string) => void): { stop(): void } {
  const timer = setInterval(() => {
    const { bavail, blocks, bsize } = statfsSync(path);
    const minFreeBytes = Math.min(MIN_FREE_BYTES, blocks * bsize * MIN_FREE_SHARE);
    if (bavail * bsize >= minFreeBytes) return;
    clearInterval(timer);
    onFull(`${Math.round((bavail * bsize) / 2 ** 20)} MiB left`);
  }, FREE_SPACE_POLL_MS);
  timer.unref();
  return { stop: () => clearInterval(timer) };
}
