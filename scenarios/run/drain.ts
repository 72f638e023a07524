import type { Recorder } from '../../conformance/history/recorder.js';
import { until } from '../../faults/waiting.js';
import type { Ledger } from '../workload/ledger.js';

/** After the last expected delivery so long a silence shows that nothing more comes: duplicates, rejected ones. */
const QUIET_MS = 400;
/** So long a silence while deliveries are missing shows that they will not come. Longer than a target's retry. */
const SILENT_MS = 6000;
const LONGEST_MS = 25_000;

/** Waits for what is confirmed and not yet delivered, and a little longer for what should not come. */
export async function drain(ledger: Ledger, recorder: Recorder, signal: AbortSignal): Promise<void> {
  const startMs = performance.now();
  ledger.lastMoveMs = startMs;
  const complete = await until(
    () => performance.now() - ledger.lastMoveMs >= (ledger.tally.outstanding > 0 ? SILENT_MS : QUIET_MS),
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
