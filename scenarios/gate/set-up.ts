import type { HistoryEvent } from '../../conformance/history/events.js';

/** Milliseconds from the last installation of a history to the first message after it; 0 when there was none. */
export function setUpMsOf(events: readonly HistoryEvent[]): number {
  const from = events.findLastIndex(({ kind }) => kind === 'installed');
  const installed = events[from];
  const submitted = events.slice(from + 1).find(({ kind }) => kind === 'submitted');
  if (installed === undefined || submitted === undefined) return 0;
  return submitted.atMs - installed.atMs;
}
