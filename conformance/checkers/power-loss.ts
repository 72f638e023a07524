import type { HistoryEvent } from '../history/events.js';
import { tracesOf } from '../history/traces.js';
import { familyOf } from '../requirements.js';
import { FAULT_NAMES } from '../target/definition.js';
import { finding, Violations } from './finding.js';
import { endOfWait, missingRecipients, rottedIds } from './loss.js';
import type { Finding } from './verdict.js';

interface Cut {
  injection: number;
  position: number;
  atRisk: number;
}

/** PP-12: what was confirmed before a power cut is delivered all the same. */
export function checkPowerLoss(history: readonly HistoryEvent[]): Finding {
  const cuts = powerCuts(history);
  const last = cuts.at(-1);
  const atRisk = cuts.reduce((sum, cut) => sum + cut.atRisk, 0);
  if (last === undefined || atRisk === 0) {
    const why =
      last === undefined ? 'no power cut hit' : `nothing was at risk at any of ${cuts.length} power cuts`;
    return finding('PP-12', 'not-measured', why, { powerCuts: cuts.length, atRiskAtPowerCuts: atRisk });
  }
  const lost = lostInCuts(history, cuts);
  const figures = { powerCuts: cuts.length, atRiskAtPowerCuts: atRisk, lostInPowerCuts: lost.count };
  if (lost.count === 0) {
    const why = `none of ${atRisk} at risk at ${cuts.length} power cuts was lost`;
    return finding('PP-12', 'pass', why, figures);
  }
  const end = endOfWait(history);
  if (end !== 'complete') {
    const why = `${lost.count} messages confirmed before a power cut were outstanding when ${end}`;
    return finding('PP-12', 'not-measured', why, figures);
  }
  const why = `${lost.count} messages confirmed before a power cut were lost`;
  return finding('PP-12', 'fail', why, figures, lost);
}

function lostInCuts(history: readonly HistoryEvent[], cuts: readonly Cut[]): Violations {
  const confirmedAt = new Map<string, number>();
  history.forEach((event, position) => {
    if (event.kind === 'answered' && event.outcome === 'confirmed') confirmedAt.set(event.id, position);
  });
  const rotted = rottedIds(history);
  const lost = new Violations();
  for (const trace of tracesOf(history).byId.values()) {
    const position = confirmedAt.get(trace.id);
    const cut = cuts.find((one) => position !== undefined && one.position > position);
    if (cut === undefined || missingRecipients(trace) === 0 || rotted.has(trace.id)) continue;
    if (trace.deliveries.some(({ end }) => end?.event.kind === 'refused' && end.event.permanent)) continue;
    lost.add(`confirmed before power cut ${cut.injection} and never delivered`, trace.id);
  }
  return lost;
}

function powerCuts(history: readonly HistoryEvent[]): Cut[] {
  const stakes = new Map<number, number>();
  const cuts: Cut[] = [];
  history.forEach((event, position) => {
    if (event.kind === 'at-risk') stakes.set(event.injection, event.confirmedUndelivered);
    if (event.kind !== 'fault' || !event.hit || familyOf(event.fault, FAULT_NAMES) !== 'power-cut') return;
    cuts.push({ injection: event.injection, position, atRisk: stakes.get(event.injection) ?? 0 });
  });
  return cuts;
}
