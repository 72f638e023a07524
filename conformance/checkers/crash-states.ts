import type { HistoryEvent, StateExplored } from '../history/events.js';
import { makeFinding, Violations } from './finding.js';
import { lastMiss } from './hits.js';
import type { Finding } from './verdict.js';

/** A confirmed message and its positions in the log of disk writes. */
interface AtRiskMessage {
  id: string;
  /** Number of log entries that were complete when the message was confirmed. */
  confirmedAtEntry: number;
  /**
   * Number of log entries that were complete when the message was first offered to a receiver; infinite if no
   * receiver was offered it.
   */
  offeredAtEntry: number;
}

/** Returns the ids in the order of their first submit, which is the order of the bits in `heldBits`. */
export function submittedIds(history: readonly HistoryEvent[]): string[] {
  return [...new Set(history.flatMap((event) => (event.kind === 'submitted' ? [event.id] : [])))];
}

/**
 * The messages that were confirmed at a known position in the log. The methods return which of these messages
 * a crash state must hold.
 */
export class AtRiskMessages {
  readonly #ids: readonly string[];
  /** Messages in the order of their bits in `heldBits`; undefined for a message that was never confirmed. */
  readonly #messages: (AtRiskMessage | undefined)[];
  readonly #requiredMasks = new Map<string, Uint8Array>();

  constructor(history: readonly HistoryEvent[]) {
    this.#ids = submittedIds(history);
    const bits = new Map(this.#ids.map((id, bit) => [id, bit]));
    this.#messages = this.#ids.map(() => undefined);
    const offered = new Map<string, number>();
    for (const event of history) {
      if (event.kind !== 'log-position') continue;
      const { id, what, entries } = event;
      const bit = bits.get(id);
      // A message that was never submitted has no bit, so a state cannot show it.
      if (bit === undefined) continue;
      if (what === 'offered') offered.set(id, Math.min(entries, offered.get(id) ?? Number.POSITIVE_INFINITY));
      else
        this.#messages[bit] ??= { id, confirmedAtEntry: entries, offeredAtEntry: Number.POSITIVE_INFINITY };
    }
    for (const message of this.#messages)
      if (message) message.offeredAtEntry = offered.get(message.id) ?? message.offeredAtEntry;
  }

  /**
   * Returns the messages, as bits, that every disk must hold after a power cut at `prefix` complete log entries.
   * `entriesBegun` is the number of entries that may have begun to reach the medium.
   */
  required({ prefix, entriesBegun }: Pick<StateExplored, 'prefix' | 'entriesBegun'>): Uint8Array {
    const key = `${prefix} ${entriesBegun}`;
    let mask = this.#requiredMasks.get(key);
    if (mask === undefined) {
      mask = new Uint8Array(Math.ceil(this.#messages.length / 8));
      for (const [bit, message] of this.#messages.entries()) {
        if (
          message === undefined ||
          message.confirmedAtEntry > prefix ||
          entriesBegun > message.offeredAtEntry
        )
          continue;
        mask[bit >> 3] = (mask[bit >> 3] ?? 0) | (1 << (bit & 7));
      }
      this.#requiredMasks.set(key, mask);
    }
    return mask;
  }

  /** Returns the ids of the messages that a state must hold and does not hold. */
  missing(event: Pick<StateExplored, 'prefix' | 'entriesBegun' | 'heldBits'>): string[] {
    const required = this.required(event);
    const live = Buffer.from(event.heldBits, 'base64');
    const missing: string[] = [];
    required.forEach((bits, byte) => {
      const gone = bits & ~(live[byte] ?? 0);
      for (let bit = 0; gone >> bit > 0; bit++) {
        if ((gone & (1 << bit)) !== 0) missing.push(this.#ids[8 * byte + bit] ?? '');
      }
    });
    return missing;
  }

  /** Returns the ids of the bits that are set in `mask`. */
  idsOf(mask: Uint8Array): string[] {
    return this.#ids.filter((_, bit) => ((mask[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0);
  }

  /**
   * Returns the number of log entries that were complete at the confirmation; undefined without a confirmation.
   */
  confirmedAtEntry(id: string): number | undefined {
    return this.#messages[this.#ids.indexOf(id)]?.confirmedAtEntry;
  }
}

/**
 * Checks PP-13: every disk that a power cut can leave holds the messages that were confirmed before the cut,
 * and nothing that was never submitted.
 */
export function checkCrashStates(history: readonly HistoryEvent[]): Finding {
  const atRiskMessages = new AtRiskMessages(history);
  const violations = new Violations();
  const lost = new Set<string>();
  let anyUnexpected = false;
  // In the history of a cluster, positions are instants: moments at which the logs of all nodes had a known length.
  const inInstants = history.some((event) => event.kind === 'installed' && event.nodes !== undefined);
  const figures = { crashStates: 0, statesAtRisk: 0, lostInStates: 0, brokenStates: 0 };
  for (const event of history) {
    if (event.kind !== 'state-explored') continue;
    const missing = atRiskMessages.missing(event);
    const states = 1 + event.equivalentStates;
    figures.crashStates += states;
    if (atRiskMessages.required(event).some((bits) => bits !== 0)) figures.statesAtRisk += states;
    if (missing.length === 0 && event.wrongCount === 0 && event.recovered) continue;
    figures.brokenStates += states;
    for (const id of missing) lost.add(id);
    anyUnexpected ||= event.wrongCount > 0;
    reportViolations(violations, event, missing, atRiskMessages, inInstants);
  }
  figures.lostInStates = lost.size;
  const { crashStates, statesAtRisk, brokenStates } = figures;
  if (brokenStates > 0) {
    const what =
      lost.size > 0
        ? `${lost.size} confirmed messages are lost`
        : anyUnexpected
          ? 'there are messages that were never submitted'
          : 'the target does not recover';
    return makeFinding(
      'PP-13',
      'fail',
      `in ${brokenStates} of ${crashStates} crash states ${what}`,
      figures,
      violations,
    );
  }
  if (statesAtRisk === 0) {
    const why =
      crashStates === 0
        ? `no crash state was explored${lastMiss(history, (fault) => fault === 'crash-states')}`
        : `nothing was at risk in any of ${crashStates}`;
    return makeFinding('PP-13', 'not-measured', why, figures);
  }
  const why = `nothing is lost in any of ${statesAtRisk} crash states with something at risk`;
  return makeFinding('PP-13', 'pass', why, figures);
}

function reportViolations(
  violations: Violations,
  event: StateExplored,
  missing: readonly string[],
  atRiskMessages: AtRiskMessages,
  inInstants: boolean,
): void {
  const where = `crash state ${event.state}`;
  if (!event.recovered) {
    const lostText = missing.length > 0 ? `${missing.length} confirmed messages, and ` : '';
    violations.add(`${where}: ${lostText}no recovery: ${event.detail}`, missing[0]);
    return;
  }
  for (const id of missing) {
    const position = atRiskMessages.confirmedAtEntry(id);
    const confirmed = inInstants ? `by instant ${position}` : `after ${position} requests to the disk`;
    violations.add(`${where}: confirmed ${confirmed}, and gone`, id);
  }
  if (event.wrongCount > 0)
    violations.add(
      `${where}: ${event.wrongCount} messages that were never submitted, or not so: ${event.detail}`,
    );
}
