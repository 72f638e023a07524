import type { Recorder } from '../../conformance/history/recorder.js';
import type { Injection, PowerDisk } from '../../faults/fault.js';
import type { Ledger } from './workload/ledger.js';
import { wrapDisk } from './wrap-disk.js';

/** Parts of a round that the tracker uses. */
export interface AtRiskTrackerOptions {
  ledger: Ledger;
  recorder: Recorder;
  /** Returns the number of the current or last injection. */
  currentInjection(): number;
  /**
   * Returns the number of deliveries that were not refused and that the target has not yet shown to have
   * recorded.
   */
  inDelivery(): number;
}

/** Time after a crash within which further kills belong to the same crash. */
const SAME_CRASH_WINDOW_MS = 5;

/** Records what was at risk at each crash: a crash that could lose nothing proves nothing. */
export class AtRiskTracker {
  readonly #options: AtRiskTrackerOptions;
  #lastCrashMs = Number.NEGATIVE_INFINITY;
  /** Messages that were confirmed and not delivered at the last crash. */
  #atRiskMessages = 0;

  constructor(options: AtRiskTrackerOptions) {
    this.#options = options;
  }

  /**
   * Records what is at risk. Must be called just before a crash. Services that are killed at once count as
   * one crash.
   */
  recordCrash(): void {
    const { ledger, recorder, currentInjection: injection, inDelivery } = this.#options;
    const nowMs = recorder.nowMs();
    if (nowMs - this.#lastCrashMs < SAME_CRASH_WINDOW_MS) return;
    this.#lastCrashMs = nowMs;
    this.#atRiskMessages = ledger.tally.outstanding;
    recorder.record({
      kind: 'at-risk',
      injection: injection(),
      confirmedUndelivered: this.#atRiskMessages,
      inFlight: ledger.tally.inFlight,
      inDelivery: inDelivery(),
    });
  }

  /**
   * Returns the injection, changed into a miss if it was a crash of the whole machine with nothing at risk.
   */
  judgeHit(injection: Injection): Injection {
    if (injection.scope !== 'machine' || this.#atRiskMessages > 0) return injection;
    return { ...injection, hit: false, detail: `${injection.detail}; nothing was at risk` };
  }

  /**
   * Waits until something is at risk, at most `limitMs`. The caller tries the power cut even after a timeout.
   */
  async waitUntilAtRisk(limitMs: number, signal: AbortSignal): Promise<void> {
    const { ledger } = this.#options;
    await ledger.waitUntil(() => ledger.tally.outstanding > 0, limitMs, signal);
  }

  /**
   * Wraps the disk for a fault: the moment of a power cut counts as a crash, even when no process was alive.
   */
  watchDisk(disk: PowerDisk): PowerDisk {
    return wrapDisk(disk, {
      stop: () => {
        this.recordCrash();
        return disk.stop();
      },
    });
  }
}
