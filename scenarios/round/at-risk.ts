import type { Recorder } from '../../conformance/history/recorder.js';
import type { Injection, PowerDisk } from '../../faults/fault.js';
import type { Ledger } from './workload/ledger.js';

export interface AtRiskTrackerOptions {
  ledger: Ledger;
  recorder: Recorder;
  /** Number of the injection that is at work, or was last. */
  currentInjection(): number;
  /** Messages that the receiver has and of which the target has not shown that it knows. */
  inDelivery(): number;
}

const SAME_CRASH_WINDOW_MS = 5;

/** What there was to lose at each crash: a crash that could not lose anything proves nothing. */
export class AtRiskTracker {
  readonly #options: AtRiskTrackerOptions;
  #lastCrashMs = Number.NEGATIVE_INFINITY;
  /** Messages that were confirmed and not delivered at the last crash. */
  #atRiskMessages = 0;

  constructor(options: AtRiskTrackerOptions) {
    this.#options = options;
  }

  /** To be called in the moment before a crash; several services that are killed at once are one crash. */
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

  /** The injection, which is a miss when it was a crash of the whole machine with nothing to lose. */
  judgeHit(injection: Injection): Injection {
    if (injection.scope !== 'machine' || this.#atRiskMessages > 0) return injection;
    return { ...injection, hit: false, detail: `${injection.detail}; nothing was at risk` };
  }

  /** Resolves when there is something to lose, or at `limitMs`: a cut of power is tried then all the same. */
  async waitUntilAtRisk(limitMs: number, signal: AbortSignal): Promise<void> {
    const { ledger } = this.#options;
    await ledger.waitUntil(() => ledger.tally.outstanding > 0, limitMs, signal);
  }

  /** The disk as a fault gets it: the moment of a cut is that of a crash, whether or not a process still lived. */
  watchDisk(disk: PowerDisk): PowerDisk {
    return {
      backend: disk.backend,
      killsTarget: disk.killsTarget,
      writeErrors: disk.writeErrors,
      stop: () => {
        this.recordCrash();
        return disk.stop();
      },
      resume: () => disk.resume(),
      cut: (moment, loss, random) => disk.cut(moment, loss, random),
    };
  }
}
