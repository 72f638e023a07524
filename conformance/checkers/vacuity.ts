import type { HistoryEvent } from '../history/events.js';

/**
 * Returns the reason why a run proves nothing: nothing was confirmed, no fault hit, or no confirmed message was
 * undelivered at any crash. Returns null for a run that proves something. A vacuous pass counts as not measured.
 */
export function vacuityReason(history: readonly HistoryEvent[]): string | null {
  let confirmed = 0;
  /** Messages that were confirmed only after their delivery. They were never at risk. */
  let confirmedAfterDelivery = 0;
  const consumed = new Set<string>();
  let tried = 0;
  let hits = 0;
  const crashed = new Set<number>();
  const atRiskByInjection = new Map<number, number>();
  for (const event of history) {
    switch (event.kind) {
      case 'answered':
        if (event.outcome !== 'confirmed') break;
        confirmed += 1;
        if (consumed.has(event.id)) confirmedAfterDelivery += 1;
        break;
      case 'uneventful':
        confirmed += event.confirmed;
        confirmedAfterDelivery += event.confirmedAfterDelivery;
        break;
      case 'consumed':
        if (event.id !== null) consumed.add(event.id);
        break;
      case 'fault':
        tried += 1;
        if (event.hit) hits += 1;
        if (event.hit && event.scope !== 'none') crashed.add(event.injection);
        break;
      case 'at-risk':
        atRiskByInjection.set(event.injection, event.confirmedUndelivered);
        break;
      default:
        break;
    }
  }
  if (confirmed === 0) return 'nothing was confirmed';
  if (tried === 0) return 'no fault was tried';
  if (hits === 0) return `none of ${tried} faults hit`;
  const atRisk = [...crashed].some((injection) => (atRiskByInjection.get(injection) ?? 0) > 0);
  if (crashed.size > 0 && !atRisk) {
    const nothing = `nothing was at risk at any of ${crashed.size} crashes`;
    return confirmedAfterDelivery < confirmed
      ? nothing
      : `${nothing}: all was delivered before it was confirmed`;
  }
  return null;
}
