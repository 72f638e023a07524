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

/** The messages that were confirmed at a known place in the log, and which of them a crash state must hold. */
export class Stakes {
  readonly #ids: readonly string[];
  /** By bit; undefined where the message was never confirmed. */
  readonly #stakes: (Stake | undefined)[];
  readonly #masks = new Map<string, Uint8Array>();

  constructor(history: readonly HistoryEvent[]) {
    this.#ids = submittedIds(history);
    const bits = new Map(this.#ids.map((id, bit) => [id, bit]));
    this.#stakes = this.#ids.map(() => undefined);
    const taken = new Map<string, number>();
    for (const event of history) {
      if (event.kind !== 'placed') continue;
      const { id, what, entries } = event;
      const bit = bits.get(id);
      // What was never submitted has no bit by which a state could show it.
      if (bit === undefined) continue;
      if (what === 'taken') taken.set(id, Math.min(entries, taken.get(id) ?? Number.POSITIVE_INFINITY));
      else this.#stakes[bit] ??= { id, confirmedAt: entries, takenAt: Number.POSITIVE_INFINITY };
    }
    for (const stake of this.#stakes) if (stake) stake.takenAt = taken.get(stake.id) ?? stake.takenAt;
  }

  /**
   * The messages that every disk must hold which a cut after `prefix` complete entries leaves, as bits. `reached`: how many
   * entries may have begun to reach the medium.
   */
  required({ prefix, reached }: Pick<StateExplored, 'prefix' | 'reached'>): Uint8Array {
    const key = `${prefix} ${reached}`;
    let mask = this.#masks.get(key);
    if (mask === undefined) {
      mask = new Uint8Array(Math.ceil(this.#stakes.length / 8));
      for (const [bit, stake] of this.#stakes.entries()) {
        if (stake === undefined || stake.confirmedAt > prefix || reached > stake.takenAt) continue;
        mask[bit >> 3] = (mask[bit >> 3] ?? 0) | (1 << (bit & 7));
      }
      this.#masks.set(key, mask);
    }
    return mask;
  }

  /** Ids of the messages that a state must hold and does not. */
  missing(event: Pick<StateExplored, 'prefix' | 'reached' | 'live'>): string[] {
    const required = this.required(event);
    const live = Buffer.from(event.live, 'base64');
    const missing: string[] = [];
    required.forEach((bits, byte) => {
      const gone = bits & ~(live[byte] ?? 0);
      for (let bit = 0; gone >> bit > 0; bit++) {
        if ((gone & (1 << bit)) !== 0) missing.push(this.#ids[8 * byte + bit] ?? '');
      }
    });
    return missing;
  }

  /** The ids of these bits. */
  idsOf(mask: Uint8Array): string[] {
    return this.#ids.filter((_, bit) => ((mask[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0);
  }

  /** So many entries of the log were complete when the confirmation had come; undefined when none did. */
  confirmedAt(id: string): number | undefined {
    return this.#stakes[this.#ids.indexOf(id)]?.confirmedAt;
  }
}

/** PP-13: every disk that a power cut may leave holds what was confirmed before, and nothing that was never submitted. */
export function checkCrashStates(history: readonly HistoryEvent[]): Finding {
  const stakes = new Stakes(history);
  const broken = new Violations();
  const lost = new Set<string>();
  let wrong = false;
  const figures = { crashStates: 0, statesAtRisk: 0, lostInStates: 0, brokenStates: 0 };
  for (const event of history) {
    if (event.kind !== 'state-explored') continue;
    const missing = stakes.missing(event);
    const states = 1 + event.alike;
    figures.crashStates += states;
    if (stakes.required(event).some((bits) => bits !== 0)) figures.statesAtRisk += states;
    if (missing.length === 0 && event.wrong === 0 && event.recovered) continue;
    figures.brokenStates += states;
    for (const id of missing) lost.add(id);
    wrong ||= event.wrong > 0;
    tell(broken, event, missing, stakes);
  }
  figures.lostInStates = lost.size;
  const { crashStates, statesAtRisk, brokenStates } = figures;
  if (brokenStates > 0) {
    const what =
      lost.size > 0
        ? `${lost.size} confirmed messages are lost`
        : wrong
          ? 'there is what was never submitted'
          : 'the target does not recover';
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

function tell(broken: Violations, event: StateExplored, missing: readonly string[], stakes: Stakes): void {
  const where = `crash state ${event.state}`;
  if (!event.recovered) {
    const stake = missing.length > 0 ? `${missing.length} confirmed messages, and ` : '';
    broken.add(`${where}: ${stake}no recovery: ${event.detail}`, missing[0]);
    return;
  }
  for (const id of missing)
    broken.add(`${where}: confirmed after ${stakes.confirmedAt(id)} requests to the disk, and gone`, id);
  if (event.wrong > 0)
    broken.add(`${where}: ${event.wrong} messages that were never submitted, or not so: ${event.detail}`);
}
