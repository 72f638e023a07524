import { statfsSync } from 'node:fs';
import type { Recorder } from '../../conformance/history/recorder.js';
import { until } from '../../faults/waiting.js';
import type { Ledger } from './workload/ledger.js';

/**
 * Silence after the last expected delivery that shows that no unexpected one follows: a duplicate or a
 * rejected message.
 */
const QUIET_MS = 400;
/** Silence that shows that missing deliveries will not come. It is longer than a target's retry interval. */
const SILENCE_TIMEOUT_MS = 6000;
/**
 * Factor for a slow target: this multiple of the longest wait for a message in this run replaces
 * SILENCE_TIMEOUT_MS if it is longer, up to MAX_SILENCE_TIMEOUT_MS. A target that was slow may be slow again.
 */
const SLOW_TARGET_FACTOR = 1.5;
/** Upper bound of the silence that a slow target is allowed; see SLOW_TARGET_FACTOR. */
const MAX_SILENCE_TIMEOUT_MS = 15_000;
const MAX_DRAIN_MS = 40_000;

/**
 * Waits for messages that are confirmed and not yet delivered, and a little longer for deliveries that should
 * not come.
 */
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
 * Watches the free space on the filesystem of a round, and calls `onFull` once before the space is used up: a
 * target that fills the disk must not destroy the kit's own evidence or harm its host.
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
