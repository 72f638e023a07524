import { TICKS_PER_MS } from '../../html/columns.js';
import type { RunView } from './run-view.js';
import { lowerBound } from './run-view.js';

/** Upper bound of the values of a curve. */
const MAX_BINS = 400;
/** Lengths of a bin in milliseconds. */
const BIN_SIZES_MS = [50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000, 3_600_000];

/** Curves over a run; a null is a time without an answer. */
export interface Rates {
  binMs: number;
  /** Middle of each bin, in seconds. */
  seconds: number[];
  perSecond: number[];
  medianMs: (number | null)[];
  slowestMs: (number | null)[];
}

/** Counts the confirmations per second, and the time from submit to confirmation. */
export function ratesOf({ run, confirmed, submitted }: RunView): Rates {
  const runMs = run.endTick / TICKS_PER_MS;
  const binMs = BIN_SIZES_MS.find((size) => runMs / size <= MAX_BINS) ?? runMs / MAX_BINS;
  const binTicks = binMs * TICKS_PER_MS;
  const rates: Rates = { binMs, seconds: [], perSecond: [], medianMs: [], slowestMs: [] };
  for (let bin = 0; bin * binTicks < run.endTick; bin++) {
    const first = lowerBound(confirmed.ticks, bin * binTicks);
    const end = lowerBound(confirmed.ticks, (bin + 1) * binTicks);
    const latencies: number[] = [];
    for (let place = first; place < end; place++) {
      const start = submitted[confirmed.messages[place] ?? 0] ?? 0;
      latencies.push(((confirmed.ticks[place] ?? 0) - start) / TICKS_PER_MS);
    }
    latencies.sort((one, other) => one - other);
    rates.seconds.push(((bin + 0.5) * binMs) / 1000);
    rates.perSecond.push(((end - first) * 1000) / binMs);
    rates.medianMs.push(latencies[latencies.length >> 1] ?? null);
    rates.slowestMs.push(latencies.at(-1) ?? null);
  }
  return rates;
}
