import type { HistoryEvent } from '../history/events.js';

/**
 * Why a run proves nothing, or null when it does: nothing confirmed, no fault that hit, or no crash that found a
 * confirmed message undelivered. A pass that is vacuous is not measured.
 */
export function vacuity(history: readonly HistoryEvent[]): string | null {
  let confirmed = false;
  let tried = 0;
  let hits = 0;
  const crashed = new Set<number>();
  const stakes = new Map<number, number>();
  for (const event of history) {
    switch (event.kind) {
      case 'answered':
        confirmed ||= event.outcome === 'confirmed';
        break;
      case 'fault':
        tried += 1;
        if (event.hit) hits += 1;
        if (event.hit && event.scope !== 'none') crashed.add(event.injection);
        break;
      case 'at-risk':
        stakes.set(event.injection, event.confirmedUndelivered);
        break;
      default:
        break;
    }
  }
  if (!confirmed) return 'nothing was confirmed';
  if (tried === 0) return 'no fault was tried';
  if (hits === 0) return `none of ${tried} faults hit`;
  const atRisk = [...crashed].some((injection) => (stakes.get(injection) ?? 0) > 0);
  if (crashed.size > 0 && !atRisk) return `nothing was at risk at any of ${crashed.size} crashes`;
  return null;
}
