import { createHash } from 'node:crypto';
import type { Body } from '../record/body.js';

/**
 * Why a message is in the dead-letter queue.
 *
 * - `refused`: the next hop refused it for good (5xx).
 * - `loop`: the next hop refused it because it passed too many hops (enhanced code 5.4.6).
 * - `retries-used-up`: the next hop answered with 4xx more often than `delivery.retryLimit` allows.
 * - `too-old`: it was not delivered within `delivery.maxAgeMs`.
 * - `unknown`: the letter has no note. Version 0.1.0 stored it, or there was no room for the note.
 * - `unreadable`: the record is whole, but it holds no message, so other software stored it.
 */
export type DeadReason = 'refused' | 'loop' | 'retries-used-up' | 'too-old' | 'unknown' | 'unreadable';

/** Every reason, in the order of the help text. */
export const DEAD_REASONS: readonly DeadReason[] = [
  'refused',
  'loop',
  'retries-used-up',
  'too-old',
  'unknown',
  'unreadable',
];

/** Why a message cannot be delivered. */
export interface DeliveryFailure {
  reason: DeadReason;
  /** Last reply of the next hop or error of the connection: one for each recipient, or one for all. */
  replies: readonly string[];
}

/** What the dead-letter queue knows about a message beside the message itself. Times are in ms since the epoch. */
export interface DeadNote extends DeliveryFailure {
  /** Number of delivery attempts, the last one included. */
  attempts: number;
  /** Time at which the gateway took the message. */
  queuedAtMs: number;
  /** Time of the first attempt; 0 when it is not known. */
  firstAttemptMs: number;
  lastAttemptMs: number;
  /** Identity of the message (`originOf`), or `pair:number` in notes of older versions; empty when it is not known. */
  origin: string;
}

/**
 * Room that the largest record of a dead-letter queue has for the note, in bytes. Dead-letter queues of version
 * 0.1.0 do not have it. There a note that does not fit is left out.
 */
export const NOTE_ROOM_BYTES = 4096;
/** Largest size of an encoded note, in bytes. */
const MAX_NOTE_BYTES = 4000;
/** Largest length of one reply in a note, in characters. */
export const MAX_REPLY_LENGTH = 480;

/**
 * Makes text of a stranger printable: every character outside of printable ASCII, and the backslash, becomes
 * `\xNN` or `\u{N}`. Cuts the result at `maxLength` characters and then ends it with `...`.
 */
export function escapeText(text: string, maxLength = Number.POSITIVE_INFINITY): string {
  let escaped = '';
  for (const character of text) {
    const code = character.codePointAt(0) as number;
    const isPlain = code >= 0x20 && code < 0x7f && character !== '\\';
    if (isPlain) escaped += character;
    else escaped += code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`;
    if (escaped.length > maxLength) return `${escaped.slice(0, maxLength - 3)}...`;
  }
  return escaped;
}

/**
 * Encodes a note as JSON of printable ASCII, of at most `MAX_NOTE_BYTES`. Replies are escaped and cut. If the
 * replies of all recipients do not fit, only the first one is kept.
 */
export function encodeNote(note: DeadNote): string {
  const replies = note.replies.map((reply) => escapeText(reply, MAX_REPLY_LENGTH));
  const isOne = replies.every((reply) => reply === replies[0]);
  const text = JSON.stringify({ ...note, replies: isOne ? replies.slice(0, 1) : replies });
  return text.length <= MAX_NOTE_BYTES ? text : JSON.stringify({ ...note, replies: replies.slice(0, 1) });
}

/** Reads the note of a dead letter. A letter without a readable note gets the reason `unknown`. */
export function noteOf(body: Body): DeadNote {
  const found = parseNote(body.note);
  const number = (value: unknown) => (typeof value === 'number' && Number.isFinite(value) ? value : 0);
  const { reason, replies, origin } = found;
  return {
    reason: DEAD_REASONS.find((known) => known === reason) ?? 'unknown',
    replies: Array.isArray(replies) ? replies.map((reply) => escapeReply(String(reply))) : [],
    attempts: number(found.attempts),
    queuedAtMs: number(found.queuedAtMs),
    firstAttemptMs: number(found.firstAttemptMs),
    lastAttemptMs: number(found.lastAttemptMs),
    origin: typeof origin === 'string' ? origin : '',
  };
}

/** Replies are escaped when they are stored. This only protects against a note that was not written by this code. */
const escapeReply = (reply: string): string =>
  /^[ -~]*$/.test(reply) ? reply : escapeText(reply, MAX_REPLY_LENGTH);

function parseNote(text: string | undefined): Record<string, unknown> {
  if (text === undefined) return {};
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** Returns the reply for the recipient at a position. */
export const replyFor = ({ replies }: Pick<DeadNote, 'replies'>, position: number): string =>
  replies[position] ?? replies[0] ?? '';

/** Returns the envelope of a message as text. Two bodies with the same envelope and data are the same message. */
const envelopeText = ({ type, sender, recipients, destination = '' }: Body): string =>
  JSON.stringify([type, `${sender}`, recipients.map(String), destination]);

/** Returns whether two bodies hold the same message, byte for byte. Notes do not count. */
export const isSameMessage = (one: Body, other: Body): boolean =>
  one.data.equals(other.data) && envelopeText(one) === envelopeText(other);

/** What `originOf` needs of a message in the main queue (`LockedMessage`). */
interface IdentifiedMessage {
  queueId: string;
  number: bigint;
  queuedAtMs: number;
  body: Body;
}

/**
 * Returns the identity of a message in the main queue: its data file, number, time and content. The number alone is not
 * enough: when a copy of the queue files is put back, numbers come again, and the settings may list the pairs in another
 * order.
 */
export function originOf({ queueId, number, queuedAtMs, body }: IdentifiedMessage): string {
  const hash = createHash('sha256').update(envelopeText(body)).update(body.data).digest('hex');
  return `${queueId}:${number}:${queuedAtMs}:${hash}`;
}

/** Returns the note of a letter whose record holds no message. */
export const unreadableNote = (): DeadNote => ({
  reason: 'unreadable',
  replies: [],
  attempts: 0,
  queuedAtMs: 0,
  firstAttemptMs: 0,
  lastAttemptMs: 0,
  origin: '',
});

/** Returns a copy of the body without its note, as the main queue stores it. */
export function withoutNote<B extends Body>(body: B): B {
  const { note: _, ...rest } = body;
  return rest as B;
}
