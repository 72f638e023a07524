import type { Recorder } from '../../conformance/history/recorder.js';
import type { Injection, PowerDisk } from '../../faults/fault.js';
import type { Ledger } from './workload/ledger.js';

export interface StakesOptions {
  ledger: Ledger;
  recorder: Recorder;
  /** Number of the injection that is at work, or was last. */
  injection(): number;
  /** Messages that the receiver has and of which the target has not shown that it knows. */
  inDelivery(): number;
}

const SAME_CRASH_MS = 5;

/** What there was to lose at each crash: a crash that could not lose anything proves nothing. */
export class Stakes {
  readonly #options: StakesOptions;
  #lastCrashMs = Number.NEGATIVE_INFINITY;
  /** Messages that were confirmed and not delivered at the last crash. */
  #last = 0;

  constructor(options: StakesOptions) {
    this.#options = options;
  }

  /** To be called in the moment before a crash; several services that are killed at once are one crash. */
  noteCrash(): void {
    const { ledger, recorder, injection, inDelivery } = this.#options;
    const nowMs = recorder.nowMs();
    if (nowMs - this.#lastCrashMs < SAME_CRASH_MS) return;
    this.#lastCrashMs = nowMs;
    this.#last = ledger.tally.outstanding;
    recorder.record({
      kind: 'at-risk',
      injection: injection(),
      confirmedUndelivered: this.#last,
      inFlight: ledger.tally.inFlight,
      inDelivery: inDelivery(),
    });
  }

  /** The injection, which is a miss when it was a crash of the whole machine with nothing to lose. */
  judged(injection: Injection): Injection {
    if (injection.scope !== 'machine' || this.#last > 0) return injection;
    return { ...injection, hit: false, detail: `${injection.detail}; nothing was at risk` };
  }

  /** Resolves when there is something to lose, or at `limitMs`: a cut of power is tried then all the same. */
  async something(limitMs: number, signal: AbortSignal): Promise<void> {
    const { ledger } = this.#options;
    await ledger.when(() => ledger.tally.outstanding > 0, limitMs, signal);
  }

  /** The disk as a fault gets it: the moment of a cut is that of a crash, whether or not a process still lived. */
  watched(disk: PowerDisk): PowerDisk {
    return {
      backend: disk.backend,
      endsTarget: disk.endsTarget,
      failingWrites: disk.failingWrites,
      stop: () => {
        this.noteCrash();
        return disk.stop();
      },
      resume: () => disk.resume(),
      cut: (moment, loss, random) => disk.cut(moment, loss, random),
    };
  }
}
