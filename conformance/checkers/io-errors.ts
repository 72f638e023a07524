import type { FaultInjected, HistoryEvent, LostFile } from '../history/events.js';
import { describeLostFile, lostFilesOf } from '../history/lost-files.js';
import { answersOf } from '../history/traces.js';
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
  let firstBlamed: Hit | undefined;
  const lost = attributeLosses(history, nextHitLookup(history, hits), (hit, id, confirmedAt) => {
    firstBlamed ??= hit;
    return describeLoss(history, hit, id, confirmedAt);
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
    const cause = describeCause(firstBlamed && faultAt(history, firstBlamed));
    const why = `${lost.describe('messages confirmed before or during a disk error')}${cause}`;
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

function faultAt(history: readonly HistoryEvent[], { position }: Hit): FaultInjected | undefined {
  const event = history[position];
  return event?.kind === 'fault' ? event : undefined;
}

/** Describes when a lost message was confirmed, compared with the first failure, and which file held it. */
function describeLoss(history: readonly HistoryEvent[], hit: Hit, id: string, confirmedAt: number): string {
  const fault = faultAt(history, hit);
  const confirmedMs = history[confirmedAt]?.atMs ?? 0;
  const when = fault?.failed && describeMoment(fault.atMs - fault.failed.sinceMs - confirmedMs);
  const confirmed = `confirmed ${when ?? 'before or during'} io-error ${hit.injection}, and never delivered`;
  if (fault === undefined) return confirmed;
  const holds = ({ messages }: LostFile) => messages.includes(id);
  const removed = fault.destroyedFiles?.find(holds);
  if (removed !== undefined)
    return `${confirmed}; the target itself removed it from its files: ${describeLostFile(removed)}`;
  const lost = fault.lostFiles?.find(holds);
  return lost === undefined ? confirmed : `${confirmed}; it was in ${describeLostFile(lost)}`;
}

/** @param beforeMs time from the confirmation to the first failure; negative when the failure came first. */
function describeMoment(beforeMs: number): string {
  return beforeMs > 0
    ? `${(beforeMs / 1000).toFixed(1)} s before the first failure of`
    : 'after the first failure of';
}

/** Upper bound of the calls that the reason names. */
const MAX_NAMED_CALLS = 2;

/** Describes what failed at an error that lost a message, and what was destroyed; empty when it is not known. */
function describeCause(fault: FaultInjected | undefined): string {
  if (fault?.failed === undefined) return '';
  const calls = fault.failed.calls.slice(0, MAX_NAMED_CALLS).map(({ call, path, error, service, count }) => {
    const times = count > 1 ? `${count} times ` : '';
    return `${times}${error} from ${call}${path === null ? '' : ` of ${path}`} (${service})`;
  });
  const [worst] = lostFilesOf(fault);
  const destroyed = worst === undefined ? '' : `; destroyed: ${describeLostFile(worst)}`;
  return `: io-error ${fault.injection} gave ${calls.join(', ')}${destroyed}`;
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
    if (!healed) return;
    const { confirmed, rejected } = answersOf(event);
    count.answered += confirmed + rejected;
    count.confirmed += confirmed;
  });
  return count;
}
