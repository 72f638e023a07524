import { QueueError } from '../../common/platform/errors.js';
import type { Kernel } from '../../common/platform/kernel.js';
import { linux } from '../../common/platform/linux.js';
import { checkLists } from '../index/check.js';
import { ENTRY, FIELD, NONE, STATUS } from '../index/layout.js';
import type { Body } from '../record/body.js';
import { decodeOrUndefined } from '../record/codec.js';
import { bodyOf, readSlot } from '../record/record.js';
import type { QueueSettings } from '../settings/settings.js';
import { type DeadNote, noteOf, unreadableNote, withoutNote } from './dead-note.js';
import { type Snapshot, withSnapshot } from './snapshot.js';
import { NOTICE, type NoticeState } from './types.js';

/** A dead letter as the operator sees it. Times are in milliseconds since the epoch; 0: unknown or never. */
export interface Letter {
  /** Message number in the dead-letter queue. */
  id: number;
  note: DeadNote;
  /** Time at which the message became a dead letter. */
  deadSinceMs: number;
  notice: NoticeState;
  noticeMs: number;
  sender: string;
  recipients: string[];
  destination: string | undefined;
  /** `unknown` for a letter with the reason `unreadable`, which has no sender and no recipients either. */
  type: Body['type'] | 'unknown';
  /** Size of the message; of the body of the record when it is unreadable. */
  messageBytes: number;
  /** Whether a process has the letter locked. */
  locked: boolean;
}

/** Which letters are wanted. Every given field must match; without a field all letters match. */
export interface LetterFilter {
  ids?: ReadonlySet<number>;
  reason?: string;
  /** Part of the sender's address. */
  sender?: string;
  /** Part of the address of a recipient. */
  recipient?: string;
}

/** Returns whether a filter matches a letter. Addresses are compared without case. */
export function matches(filter: LetterFilter, letter: Letter): boolean {
  const contains = (address: string, part: string) => address.toLowerCase().includes(part.toLowerCase());
  if (filter.ids !== undefined && !filter.ids.has(letter.id)) return false;
  if (filter.reason !== undefined && letter.note.reason !== filter.reason) return false;
  if (filter.sender !== undefined && !contains(letter.sender, filter.sender)) return false;
  const { recipient } = filter;
  return recipient === undefined || letter.recipients.some((address) => contains(address, recipient));
}

/**
 * Reads the dead letters in the order of the queue, and changes nothing. The queue may be in use.
 * @throws QueueError `mutex-held` when another process holds the dead-letter queue for too long;
 * `damaged-queue` when it has no usable index.
 */
export function listLetters(
  settings: QueueSettings,
  filter: LetterFilter = {},
  kernel: Kernel = linux,
): Letter[] {
  return withDead(settings, kernel, (snapshot) => {
    const letters: Letter[] = [];
    visit(snapshot, (letter) => {
      if (matches(filter, letter)) letters.push(letter);
    });
    return letters;
  });
}

/**
 * Reads one dead letter with its message, or with the body of its record when it is unreadable; undefined when it is not
 * there. Fails as `listLetters`.
 */
export function readLetter(
  settings: QueueSettings,
  id: number,
  kernel: Kernel = linux,
): { letter: Letter; body: Body | { data: Buffer } } | undefined {
  return withDead(settings, kernel, (snapshot) => {
    let found: { letter: Letter; body: Body | { data: Buffer } } | undefined;
    visit(snapshot, (letter, body) => {
      if (letter.id !== id) return;
      found = { letter, body: 'type' in body ? withoutNote(body) : { data: Buffer.from(body.data) } };
    });
    return found;
  });
}

function withDead<T>(settings: QueueSettings, kernel: Kernel, read: (snapshot: Snapshot) => T): T {
  const { directory } = settings.deadLetter;
  return withSnapshot({ directory, indexDirectory: directory }, read, kernel);
}

/** Calls back for every whole letter. Letters that are being stored are left out. */
function visit(
  { image, data, key, ring, inUse }: Snapshot,
  callback: (letter: Letter, body: Body | { data: Buffer }) => void,
): void {
  const [problem] = inUse ? [] : checkLists(image);
  if (problem !== undefined)
    throw new QueueError(
      'damaged-queue',
      `the index of the dead letters: ${problem}; rebuild makes a new one`,
    );
  let left = image.geometry.entries;
  for (let entry = image.get(FIELD.head); entry !== NONE && left > 0; left -= 1) {
    const at = image.entryWord(entry);
    const offset = image.getWide(at + ENTRY.offset);
    const id = image.getWide(at + ENTRY.number);
    entry = image.get(at + ENTRY.next);
    if (image.get(at + ENTRY.status) !== STATUS.ready || offset < ring.start || offset >= ring.end) continue;
    const found = readSlot(data, key, offset);
    if (found.state !== 'valid' || found.header.number !== id) continue;
    const bytes = bodyOf(data, found.header);
    const body = decodeOrUndefined(found.header.type, bytes);
    const state = image.get(at + ENTRY.retryCount);
    const letter = {
      id,
      note: body ? noteOf(body) : unreadableNote(),
      deadSinceMs: found.header.dateMs,
      notice: noticeOf(state),
      noticeMs: state === NOTICE.sent ? image.getWide(at + ENTRY.lastRetry) : 0,
      sender: `${body?.sender ?? ''}`,
      recipients: body?.recipients.map(String) ?? [],
      destination: body?.destination,
      type: body?.type ?? ('unknown' as const),
      messageBytes: (body?.data ?? bytes).length,
      locked: image.get(at + ENTRY.lock) !== 0,
    };
    callback(letter, body ?? { data: bytes });
  }
}

const noticeOf = (state: number): NoticeState =>
  (Object.keys(NOTICE) as NoticeState[]).find((name) => NOTICE[name] === state) ?? 'unknown';
