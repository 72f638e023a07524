import type { HistoryEvent, StateExplored } from '../history/events.js';
import { finding, Violations } from './finding.js';
import type { Finding } from './verdict.js';

/** What is known of one message, for the disks that a power cut may have left. */
interface Stake {
  id: string;
  /** So many entries of the log were complete when its confirmation had come. */
  confirmedAt: number;
  /** So many were complete when a receiver was first offered it; infinite when none was. */
  takenAt: number;
}

/** Ids in the order of their first submit: the order of the bits of `live`. */
export function submittedIds(history: readonly HistoryEvent[]): string[] {
  return [...new Set(history.flatMap((event) => (event.kind === 'submitted' ? [event.id] : [])))];
}

/** The messages that were confirmed at a known place in the log. */
export function stakesOf(history: readonly HistoryEvent[]): Stake[] {
  const stakes = new Map<string, Stake>();
  const taken = new Map<string, number>();
  for (const event of history) {
    if (event.kind !== 'placed') continue;
    const { id, what, entries } = event;
    if (what === 'taken') taken.set(id, Math.min(entries, taken.get(id) ?? Number.POSITIVE_INFINITY));
    else if (!stakes.has(id)) stakes.set(id, { id, confirmedAt: entries, takenAt: Number.POSITIVE_INFINITY });
  }
  return [...stakes.values()].map((stake) => ({ ...stake, takenAt: taken.get(stake.id) ?? stake.takenAt }));
}

/**
 * The messages that every disk must hold which a cut after `prefix` complete entries leaves. `reached`: how many entries
 * may have begun to reach the medium.
 */
export function requiredAt(
  stakes: readonly Stake[],
  { prefix, reached }: Pick<StateExplored, 'prefix' | 'reached'>,
) {
  return stakes.filter(({ confirmedAt, takenAt }) => confirmedAt <= prefix && reached <= takenAt);
}

/** PP-13: every disk that a power cut may leave holds what was confirmed before, and nothing that was never submitted. */
export function checkCrashStates(history: readonly HistoryEvent[]): Finding {
  const bits = new Map(submittedIds(history).map((id, bit) => [id, bit]));
  const stakes = stakesOf(history);
  const broken = new Violations();
  const lost = new Set<string>();
  const figures = { crashStates: 0, statesAtRisk: 0, lostInStates: 0, brokenStates: 0 };
  for (const event of history) {
    if (event.kind !== 'state-explored') continue;
    const required = requiredAt(stakes, event);
    const live = Buffer.from(event.live, 'base64');
    const has = (bit = -1) => ((live[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0;
    const missing = required.filter(({ id }) => !has(bits.get(id)));
    figures.crashStates += 1;
    if (required.length > 0) figures.statesAtRisk += 1;
    if (missing.length === 0 && event.wrong === 0) continue;
    figures.brokenStates += 1;
    for (const { id } of missing) lost.add(id);
    tell(broken, event, missing);
  }
  figures.lostInStates = lost.size;
  const { crashStates, statesAtRisk, brokenStates } = figures;
  if (brokenStates > 0) {
    const what =
      lost.size > 0 ? `${lost.size} confirmed messages are lost` : 'there is what was never submitted';
    return finding(
      'PP-13',
      'fail',
      `in ${brokenStates} of ${crashStates} crash states ${what}`,
      figures,
      broken,
    );
  }
  if (statesAtRisk === 0) {
    const why =
      crashStates === 0 ? 'no crash state was explored' : `nothing was at risk in any of ${crashStates}`;
    return finding('PP-13', 'not-measured', why, figures);
  }
  const why = `nothing is lost in any of ${statesAtRisk} crash states with something at risk`;
  return finding('PP-13', 'pass', why, figures);
}

function tell(broken: Violations, event: StateExplored, missing: readonly Stake[]): void {
  const where = `crash state ${event.state}`;
  if (!event.recovered && missing.length > 0) {
    broken.add(
      `${where}: ${missing.length} confirmed messages, and no recovery: ${event.detail}`,
      missing[0]?.id,
    );
    return;
  }
  for (const { id, confirmedAt } of missing)
    broken.add(`${where}: confirmed after ${confirmedAt} requests to the disk, and gone`, id);
  if (event.wrong > 0)
    broken.add(`${where}: ${event.wrong} messages that were never submitted, or not so: ${event.detail}`);
}
