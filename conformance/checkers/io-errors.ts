import type { HistoryEvent } from '../history/events.js';
import { makeFinding, Violations } from './finding.js';
import { attributeLosses, type Hit, hitsOf, inFamily, nextHitLookup } from './hits.js';
import type { Finding } from './verdict.js';

/**
 * Checks PP-14: messages that were confirmed while syncs or writes failed are delivered after the restart, and the
 * restarted target confirms again.
 */
export function checkIoErrors(history: readonly HistoryEvent[]): Finding {
  const hits = hitsOf(history, inFamily('io-error'));
  const underWay = hits.filter(({ inFlight, atRisk }) => inFlight + atRisk > 0).length;
  const lost = attributeLosses(history, nextHitLookup(history, hits), ({ injection }) => {
    return `confirmed before or during io-error ${injection}, and never delivered`;
  });
  const after = answersAfterErrors(history, hits);
  const figures = { ioErrors: hits.length, underWay, lostAtIoErrors: lost.violations.count };
  if (underWay === 0) {
    const why =
      hits.length === 0
        ? 'no sync and no write failed'
        : `nothing was under way at any of ${hits.length} errors`;
    return makeFinding('PP-14', 'not-measured', why, figures);
  }
  if (lost.violations.count > 0) {
    const why = lost.describe('messages that rested on a sync or write that had failed');
    return makeFinding('PP-14', 'fail', why, figures, lost.violations);
  }
  if (after.answered > 0 && after.confirmed === 0) {
    const none = new Violations();
    none.add(`none of ${after.answered} submits was confirmed when the disk worked again`);
    return makeFinding('PP-14', 'fail', 'the target did not recover from a disk error', figures, none);
  }
  if (lost.undecided > 0) {
    const why = lost.describe('messages confirmed before an error');
    return makeFinding('PP-14', 'not-measured', why, figures);
  }
  const why = `none was lost at ${hits.length} times when syncs or writes failed`;
  return makeFinding('PP-14', 'pass', why, figures);
}

/** Counts the definite answers between each io-error that hit and the next fault. */
function answersAfterErrors(
  history: readonly HistoryEvent[],
  hits: readonly Hit[],
): { answered: number; confirmed: number } {
  const positions = new Set(hits.map(({ position }) => position));
  const count = { answered: 0, confirmed: 0 };
  let healed = false;
  history.forEach((event, position) => {
    if (event.kind === 'fault') healed = positions.has(position);
    if (!healed || event.kind !== 'answered' || event.outcome === 'indefinite') return;
    count.answered += 1;
    if (event.outcome === 'confirmed') count.confirmed += 1;
  });
  return count;
}
