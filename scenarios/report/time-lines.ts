import type { TimeReport } from '../host/phase-clock.js';

/** Shortest time that the report calls an overrun, in milliseconds. */
const MIN_REPORTED_OVERRUN_MS = 1000;

/**
 * Formats where the time of a run went, the longest phase first, and by how much which phases were longer than
 * the budget.
 */
export function timeLines({ tookMs, budgetMs, phasesMs, overrunMs }: TimeReport): string[] {
  const lines = [`  ${formatPhases(phasesMs)}`];
  const lateMs = tookMs - budgetMs;
  if (lateMs < MIN_REPORTED_OVERRUN_MS)
    lines.push(`  ${formatSeconds(tookMs)} of a budget of ${formatSeconds(budgetMs)}`);
  else {
    // The drain must see that a missing message does not come: cut short, it would call a late one lost.
    const late = formatPhases(overrunMs ?? {}).replace(/drain [\d.]+ s/, '$&, which is never cut short');
    const budget = formatSeconds(budgetMs);
    lines.push(`  ${formatSeconds(lateMs)} more than the budget of ${budget}: after its end came ${late}`);
  }
  return lines;
}

function formatPhases(phasesMs: Readonly<Record<string, number>>): string {
  return Object.entries(phasesMs)
    .sort(([, a], [, b]) => b - a)
    .map(([phase, ms]) => `${phase} ${formatSeconds(ms)}`)
    .join(', ');
}

function formatSeconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
