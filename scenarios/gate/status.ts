import type { HistoryEvent } from '../../conformance/history/events.js';

/**
 * Returns a function that describes the rounds of a gate at the moment of its call: the current round, confirmations and
 * their rate since the call before, injections, and the time left.
 * @param history the events of the run. It grows while the function is in use.
 * @param endMs end of the rounds, in ms of `performance.now()`.
 */
export function describeRounds(
  history: readonly HistoryEvent[],
  endMs: number,
  nowMs: () => number = () => performance.now(),
): () => string {
  const counts = { round: 0, confirmed: 0, injections: 0, hits: 0 };
  let seen = 0;
  let lastMs = nowMs();
  return () => {
    const confirmedBefore = counts.confirmed;
    for (; seen < history.length; seen++) count(history[seen], counts);
    const now = nowMs();
    const rate = Math.round((1000 * (counts.confirmed - confirmedBefore)) / Math.max(1, now - lastMs));
    lastMs = now;
    const { round, confirmed, injections, hits } = counts;
    return `round ${round}: ${confirmed} confirmed (${rate} a second), ${hits} of ${injections} faults hit, ${timeLeft(endMs - now)}`;
  };
}

function count(
  event: HistoryEvent | undefined,
  counts: { round: number; confirmed: number; injections: number; hits: number },
): void {
  if (event?.kind === 'installed') counts.round = event.round;
  if (event?.kind === 'answered' && event.outcome === 'confirmed') counts.confirmed++;
  if (event?.kind !== 'fault') return;
  counts.injections++;
  if (event.hit) counts.hits++;
}

/** Describes an exploration that began at `beganMs` and must end at `endMs`, in ms of `performance.now()`. */
export function describeExploration(beganMs: number, endMs: number, nowMs = performance.now()): string {
  return `crash states: ${Math.round((nowMs - beganMs) / 1000)} s, ${timeLeft(endMs - nowMs)}`;
}

function timeLeft(ms: number): string {
  return ms > 0 ? `${Math.ceil(ms / 1000)} s left` : 'the budget is used; the last checks are running';
}
