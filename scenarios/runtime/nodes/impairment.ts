import type { Links } from '../../../faults/fault.js';

/** Delay and loss of what a node sends. */
export type Impairment = Parameters<NonNullable<Links['impair']>>[1];

/** Number of packets that may wait: with the default of 1000, a fast node would lose packets that are only to be late. */
const QUEUE_PACKETS = 100_000;

/** Returns the options of the queue `netem` for an impairment; empty when it impairs nothing. */
export function netemOptions({ delayMs = 0, jitterMs = 0, lossPercent = 0 }: Impairment): string[] {
  const delay = delayMs > 0 || jitterMs > 0 ? ['delay', `${delayMs}ms`] : [];
  const jitter = jitterMs > 0 ? [`${jitterMs}ms`] : [];
  const loss = lossPercent > 0 ? ['loss', 'random', `${lossPercent}%`] : [];
  const options = [...delay, ...jitter, ...loss];
  return options.length === 0 ? [] : ['limit', `${QUEUE_PACKETS}`, ...options];
}
