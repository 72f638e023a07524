import type { HistoryEvent } from '../history/events.js';
import { finding } from './finding.js';
import { endOfWait } from './loss.js';
import { hitsOf, lostIn } from './stakes.js';
import type { Finding } from './verdict.js';

/** PP-12: what was confirmed before a power cut is delivered all the same. */
export function checkPowerLoss(history: readonly HistoryEvent[]): Finding {
  const cuts = hitsOf(history, 'power-cut');
  const last = cuts.at(-1);
  const atRisk = cuts.reduce((sum, cut) => sum + cut.atRisk, 0);
  if (last === undefined || atRisk === 0) {
    const why =
      last === undefined ? 'no power cut hit' : `nothing was at risk at any of ${cuts.length} power cuts`;
    return finding('PP-12', 'not-measured', why, { powerCuts: cuts.length, atRiskAtPowerCuts: atRisk });
  }
  const lost = lostIn(
    history,
    (confirmedAt) => cuts.find(({ position }) => position > confirmedAt),
    ({ injection }) => `confirmed before power cut ${injection} and never delivered`,
  );
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
