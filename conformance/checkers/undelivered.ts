import type { HistoryEvent } from '../history/events.js';
import { type Trace, tracesOf } from '../history/traces.js';

/**
 * What is known about a confirmed message that was not delivered.
 * - `lost`: the target claims a time within which it delivers (`guarantee.redeliverySeconds`), the kit waited this
 *   long, and the target does not report that it still stores the message. Histories of earlier versions have no
 *   times; their complete waits count as this long.
 * - `late`: the kit waited as long as it allows a target that claims no time, or the target reports that it still
 *   stores the message after the time that it claims. The requirement is violated, and the message may still exist.
 * - `undecided`: nothing can be concluded.
 */
export type Fate = 'lost' | 'late' | 'undecided';

/** A confirmed message without an accepted delivery to each recipient. */
export interface Undelivered {
  trace: Trace;
  /** Number of recipients without an accepted delivery. */
  missing: number;
  fate: Fate;
  /** Completes "N messages …". For `undecided` it may end with what the user can do. */
  text: string;
}

/** What the user can do when the kit cannot tell a late message from a lost one. */
const REMEDY = 'state guarantee.redeliverySeconds or a nudge command';

/** Names the way out of the violation for the author of a correct queue that is slower than the kit waits. */
const NO_CLAIM = 'guarantee.redeliverySeconds is not claimed';

/**
 * Protocols in which no lease outlives its connection: the target offers a message again as soon as the connection is
 * gone or the transaction has ended. In the others only a time ends a lease, or the wait for the next attempt.
 */
const LEASE_ENDS_WITH_CONNECTION: ReadonlySet<string> = new Set([
  'amqp',
  'amqp-stream',
  'mqtt',
  'beanstalk',
  'postgres',
]);

/**
 * Matches the `detail` of a refusal that the receiver did not choose: the connection or session of the delivery broke.
 * The receivers in `protocols/client` and `protocols/smtp` write these texts.
 */
const BROKEN_DELIVERY = /^(the connection broke|the session ended before)/;

/** One wait for outstanding messages, at the end of a round. */
interface Wait {
  /** Index of the event `drained` in the history. */
  position: number;
  /** Reason why the wait shows nothing, which completes "N messages …"; undefined for a complete wait. */
  inconclusive: string | undefined;
  allowedMs: number | undefined;
  allowedBy: 'claim' | 'shown' | 'default' | undefined;
  /** Number of live messages that the target reported after the wait; undefined without a report. */
  live: number | undefined;
}

/** Returns the number of recipients of the message without an accepted delivery. */
export function missingRecipientCount(trace: Trace): number {
  const expected = trace.submitted?.recipients ?? 1;
  const served = new Set<number>();
  for (const { delivered, end } of trace.deliveries) {
    if (end?.event.kind === 'consumed') for (const recipient of delivered.recipients) served.add(recipient);
  }
  return Math.max(0, expected - served.size);
}

/** Returns the ids of messages whose stored bytes were damaged on purpose. */
export function rottedIds(history: readonly HistoryEvent[]): Set<string> {
  const ids = new Set<string>();
  for (const event of history) {
    if (event.kind === 'fault' && event.hit) for (const id of event.rotted) ids.add(id);
  }
  return ids;
}

/** Returns true if a receiver refused the message permanently. The target may then put it aside. */
export function isRefusedForGood({ deliveries }: Trace): boolean {
  return deliveries.some(({ end }) => end?.event.kind === 'refused' && end.event.permanent);
}

/**
 * Returns the confirmed messages that were not delivered, and what is known about each. Messages that the receiver
 * refused permanently or that were damaged on purpose are left out.
 */
export function undeliveredMessages(history: readonly HistoryEvent[]): Undelivered[] {
  const rotted = rottedIds(history);
  const waits = waitsOf(history);
  const byWait = new Map<Wait | undefined, { trace: Trace; missing: number }[]>();
  const submittedAt = positionsOfSubmits(history);
  const protocol = history.find((event) => event.kind === 'run-started')?.protocol;
  const leaseOutlivesConnection = protocol === undefined || !LEASE_ENDS_WITH_CONNECTION.has(protocol);
  for (const trace of tracesOf(history).byId.values()) {
    if (trace.answered?.outcome !== 'confirmed' || rotted.has(trace.id) || isRefusedForGood(trace)) continue;
    const missing = missingRecipientCount(trace);
    if (missing === 0) continue;
    const since = submittedAt.get(trace.id) ?? -1;
    const wait = waits.find(({ position }) => position > since);
    const messages = byWait.get(wait) ?? [];
    byWait.set(wait, messages);
    messages.push({ trace, missing });
  }
  return [...byWait].flatMap(([wait, messages]) => {
    return messages.map((message) => {
      const mayBeLeased = (last: 'refused' | 'broken') =>
        leaseOutlivesConnection && isHandedOut(message.trace, last);
      return { ...message, ...judge(wait, messages.length, mayBeLeased) };
    });
  });
}

function positionsOfSubmits(history: readonly HistoryEvent[]): Map<string, number> {
  const positions = new Map<string, number>();
  history.forEach((event, position) => {
    if (event.kind === 'submitted') positions.set(event.id, position);
  });
  return positions;
}

function waitsOf(history: readonly HistoryEvent[]): Wait[] {
  const waits: Wait[] = [];
  let down = false;
  let last: Wait | undefined;
  history.forEach((event, position) => {
    if (event.kind === 'installed') {
      last = undefined;
      down = false;
    }
    if (event.kind === 'recovery-failed') down = true;
    if (event.kind === 'recovered') down = false;
    // A report of problems may not know what is stored.
    if (event.kind === 'inspected' && event.ok && last !== undefined) {
      // Each node of a cluster has its own report. The message may be stored on any of them.
      const ofOtherNodes = event.node === undefined ? undefined : last.live;
      last.live = Math.max(event.live ?? -1, ofOtherNodes ?? -1);
      if (last.live < 0) last.live = undefined;
    }
    if (event.kind !== 'drained') return;
    const { complete, allowedMs, allowedBy } = event;
    const inconclusive = down
      ? 'were outstanding when the target had not recovered'
      : complete
        ? undefined
        : 'were outstanding when the wait for them ended, though deliveries still came';
    last = { position, inconclusive, allowedMs, allowedBy, live: undefined };
    waits.push(last);
  });
  return waits;
}

/**
 * @param count number of messages that the wait did not bring.
 * @param mayBeLeased returns whether the message may wait for the end of a lease, or for the next attempt; see
 *   `isHandedOut`.
 */
function judge(
  wait: Wait | undefined,
  count: number,
  mayBeLeased: (last: 'refused' | 'broken') => boolean,
): Pick<Undelivered, 'fate' | 'text'> {
  if (wait === undefined) {
    return { fate: 'undecided', text: 'were outstanding when the run ended without a wait for them' };
  }
  const { inconclusive, allowedMs, allowedBy, live } = wait;
  if (inconclusive !== undefined) return { fate: 'undecided', text: inconclusive };
  if (allowedMs === undefined || allowedBy === undefined) return { fate: 'lost', text: 'were lost' };
  const time = `${Math.round(allowedMs / 100) / 10} s`;
  const late = `were not delivered within ${time}`;
  const stored = live !== undefined && live >= count;
  if (allowedBy === 'claim') {
    return stored
      ? { fate: 'late', text: `${late}, the time that the target claims, though still stored` }
      : { fate: 'lost', text: 'were lost' };
  }
  if (stored) {
    const text = `were not delivered within ${time}, and verify reports ${live} live messages; ${REMEDY}`;
    return { fate: 'undecided', text };
  }
  // The shown redeliveries followed refusals. They say nothing about the lease of a receiver that is gone.
  if (mayBeLeased(allowedBy === 'default' ? 'refused' : 'broken')) {
    const text = `were delivered, not accepted, and not offered again within ${time}; ${REMEDY}`;
    return { fate: 'undecided', text };
  }
  return { fate: 'late', text: `${late} (${NO_CLAIM})` };
}

/**
 * Returns true if the receiver got the message and did not accept it.
 * @param last `broken`: only if the last delivery has no end, or ended with its connection. `refused`: also if the
 *   receiver refused it.
 */
function isHandedOut({ deliveries }: Trace, last: 'refused' | 'broken'): boolean {
  const delivery = deliveries.at(-1);
  if (delivery === undefined) return false;
  const end = delivery.end?.event;
  if (end === undefined) return true;
  return end.kind === 'refused' && (last === 'refused' || BROKEN_DELIVERY.test(end.detail));
}

/** Says in words what happened to several messages: each text once, in order, with the number of its messages. */
export function describeFates(messages: readonly Pick<Undelivered, 'text'>[], what: string): string {
  const counts = new Map<string, number>();
  for (const { text } of messages) counts.set(text, (counts.get(text) ?? 0) + 1);
  return [...counts].map(([text, count]) => `${count} ${what} ${text}`).join('; ');
}
