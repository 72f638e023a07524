import type { HistoryEvent } from '../history/events.js';
import { answersOf } from '../history/traces.js';
import { familyOf } from '../requirements/requirements.js';
import { makeFinding, Violations } from './finding.js';
import type { Finding } from './verdict.js';

/** Checks PP-8: a full queue rejects with a clear answer, and accepts messages again when it has free space. */
export function checkFull(history: readonly HistoryEvent[]): Finding {
  const violations = new Violations();
  let rejected = 0;
  let filled = 0;
  /** Number of injections at which a service ended by itself, instead of a rejection. */
  let ended = 0;
  let exitsSinceHealed = 0;
  /**
   * Phase of the run: before the queue is full, while it is full, or after it has free space again. Answers
   * are counted separately for `full` and `room`.
   */
  let state: 'before' | 'full' | 'room' = 'before';
  let indefinite = 0;
  let confirmedWhenFull = 0;
  let answeredWithFreeSpace = 0;
  let confirmedWithFreeSpace = 0;
  for (const event of history) {
    if (event.kind === 'fault' && event.hit && familyOf(event.fault, ['full'])) {
      filled += 1;
      if (exitsSinceHealed > 0) ended += 1;
      state = 'full';
    }
    if (event.kind === 'healed' || event.kind === 'recovered') exitsSinceHealed = 0;
    if (event.kind === 'service-exited' && !event.expected) exitsSinceHealed += 1;
    if (event.kind === 'healed' && familyOf(event.fault, ['full'])) state = 'room';
    const answers = answersOf(event);
    rejected += answers.rejected;
    if (state === 'full') {
      indefinite += answers.indefinite;
      confirmedWhenFull += answers.confirmed;
    }
    if (state === 'room') {
      answeredWithFreeSpace += answers.confirmed + answers.rejected + answers.indefinite;
      confirmedWithFreeSpace += answers.confirmed;
    }
  }
  const figures = { filled, rejected, ended };
  if (filled === 0) return makeFinding('PP-8', 'not-measured', 'the queue was never full', figures);
  if (rejected === 0 && indefinite > 0 && confirmedWhenFull === 0) {
    violations.add(`the queue was full, and ${indefinite} submits were left without a clear answer`);
  }
  if (answeredWithFreeSpace > 0 && confirmedWithFreeSpace === 0) {
    violations.add(
      `none of ${answeredWithFreeSpace} submits was confirmed when the queue had free space again`,
    );
  }
  if (violations.count > 0)
    return makeFinding('PP-8', 'fail', 'being full was not handled', figures, violations);
  if (rejected === 0)
    return makeFinding(
      'PP-8',
      'not-measured',
      ended > 0
        ? `nothing was rejected: the target ended at ${ended} of ${filled} full queues or disks`
        : 'nothing was rejected: the queue had free space left',
      figures,
    );
  return makeFinding(
    'PP-8',
    'pass',
    `${rejected} submits were rejected, and messages were taken again afterwards`,
    figures,
  );
}
