import { statfsSync } from 'node:fs';
import type { Recorder } from '../../conformance/history/recorder.js';
import { until } from '../../faults/waiting.js';
import type { Ledger } from './workload/ledger.js';

/** After the last expected delivery so long a silence shows that nothing more comes: duplicates, rejected ones. */
const QUIET_MS = 400;
/** So long a silence while deliveries are missing shows that they will not come. Longer than a target's retry. */
const SILENT_MS = 6000;
/** Or so many times what a message of this run has taken before, up to so long: a slow target is slow once more. */
const SLOWER = 1.5;
const MOST_SILENT_MS = 15_000;
const LONGEST_MS = 40_000;

/** Waits for what is confirmed and not yet delivered, and a little longer for what should not come. */
export async function drain(ledger: Ledger, recorder: Recorder, signal: AbortSignal): Promise<void> {
  const startMs = performance.now();
  ledger.lastMoveMs = startMs;
  const silentMs = () => Math.min(MOST_SILENT_MS, Math.max(SILENT_MS, SLOWER * ledger.longestWaitMs));
  const complete = await until(
    () => performance.now() - ledger.lastMoveMs >= (ledger.tally.outstanding > 0 ? silentMs() : QUIET_MS),
    LONGEST_MS,
    signal,
    20,
  );
  recorder.record({
    kind: 'drained',
    waitedMs: Math.round(performance.now() - startMs),
    complete: complete && !signal.aborted,
  });
}

const LEAST_BYTES = 1024 ** 3;
const LEAST_SHARE = 0.25;
const LOOK_EVERY_MS = 25;

/**
 * Watches the room that is left where a round works, and calls `onFull` once, before the last of it is gone: a target
 * that fills the disk must not take the kit's own evidence, or its host, with it.
 * @param path any path on that filesystem.
 */
export function watchRoom(path: string, onFull: (words: string) => void): { stop(): void } {
  const timer = setInterval(() => {
    const { bavail, blocks, bsize } = statfsSync(path);
    const leastBytes = Math.min(LEAST_BYTES, blocks * bsize * LEAST_SHARE);
    if (bavail * bsize >= leastBytes) return;
    clearInterval(timer);
    onFull(`${Math.round((bavail * bsize) / 2 ** 20)} MiB left`);
  }, LOOK_EVERY_MS);
  timer.unref();
  return { stop: () => clearInterval(timer) };
}
