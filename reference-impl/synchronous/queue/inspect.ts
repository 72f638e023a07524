import { QueueError } from '../../common/platform/errors.js';
import { linux } from '../../common/platform/linux.js';
import { checkLists } from '../index/check.js';
import { ENTRY, FIELD, NONE, STATUS } from '../index/layout.js';
import { decodeBody } from '../record/codec.js';
import { bodyOf, readSlot } from '../record/record.js';
import { keptAsideNames } from '../restore/kept-aside.js';
import type { QueueSettings } from '../settings/settings.js';
import { noteOf } from './dead-note.js';
import { parkedIn } from './parked.js';
import { pairPaths } from './paths.js';
import { type Snapshot, withSnapshot } from './snapshot.js';

/** Latest time that a JavaScript Date can hold, in milliseconds since the epoch. */
const MAX_DATE_MS = 8.64e15;

/**
 * Yields the present state of the queue and changes nothing. For each pair it yields one object about the
 * pair, and then, unless `summaryOnly` is set, one object per message in queue order.
 *
 * @throws QueueError `mutex-held` when another process holds a pair for too long; `damaged-queue` when a pair
 * has no usable index.
 */
export async function* inspectQueue(settings: QueueSettings, summaryOnly = false): AsyncGenerator<object> {
  const dead = settings.deadLetter.directory;
  const all = [...settings.pairs, { directory: dead, indexDirectory: dead }];
  for (const [number, pair] of all.entries()) {
    const name = number < settings.pairs.length ? `${number}` : 'dead';
    const keptAside = keptAsideNames(linux, pairPaths(pair).keptAside);
    yield* withSnapshot(pair, (snapshot) => [
      summarizePair(name, snapshot, keptAside),
      ...(summaryOnly ? [] : listMessages(name, snapshot)),
    ]);
  }
}

function summarizePair(pair: string, { image, ring, inUse }: Snapshot, keptAside: string[]): object {
  const usedBytes = image.getWide(FIELD.usedBytes);
  const lastSyncMs = image.getWide(FIELD.lastSync);
  return {
    pair,
    inUse,
    messages: image.get(FIELD.inUse),
    parked: parkedIn(image).messages,
    entries: image.geometry.entries,
    usedBytes,
    freeBytes: ring.end - ring.start - usedBytes,
    writeOffset: image.getWide(FIELD.writeOffset),
    nextNumber: image.getWide(FIELD.nextNumber),
    batches: image.get(FIELD.batches),
    helperIncarnation: image.get(FIELD.helperIncarnation),
    lastSync: timeOf(lastSyncMs),
    keptAside,
  };
}

/**
 * Formats a time. Null stands for 0, which means never, and for a number of a damaged index that is not a
 * time.
 */
const timeOf = (ms: number): string | null =>
  ms === 0 || ms > MAX_DATE_MS ? null : new Date(ms).toISOString();

function listMessages(pair: string, snapshot: Snapshot): object[] {
  const { image } = snapshot;
  const [problem] = snapshot.inUse ? [] : checkLists(image);
  if (problem) {
    throw new QueueError('damaged-queue', `the index of pair ${pair}: ${problem}; rebuild makes a new one`);
  }
  const lines: object[] = [];
  const maxLines = image.geometry.entries;
  for (let entry = image.get(FIELD.head); entry !== NONE && lines.length < maxLines; ) {
    const at = image.entryWord(entry);
    const offset = image.getWide(at + ENTRY.offset);
    const lastRetryMs = image.getWide(at + ENTRY.lastRetry);
    lines.push({
      pair,
      message: image.getWide(at + ENTRY.number),
      offset,
      lengthBytes: image.get(at + ENTRY.length),
      status: image.get(at + ENTRY.status) === STATUS.reserved ? 'reserved' : 'ready',
      locked: image.get(at + ENTRY.lock) !== 0,
      tries: image.get(at + ENTRY.retryCount),
      lastTry: timeOf(lastRetryMs),
      ...describeRecord(snapshot, offset),
    });
    entry = image.get(at + ENTRY.next);
  }
  return lines;
}

function describeRecord({ data, key, ring }: Snapshot, offset: number): object {
  if (offset < ring.start || offset >= ring.end) return { record: 'nothing' };
  const found = readSlot(data, key, offset);
  if (found.state !== 'valid') return { record: found.state };
  const decoded = decodeBody(found.header.type, bodyOf(data, found.header));
  const { data: message, note, ...body } = decoded;
  const plain =
    body.type === 'sms'
      ? { ...body, sender: `${body.sender}`, recipients: body.recipients.map(String) }
      : body;
  const dead = note === undefined ? {} : { note: noteOf(decoded) };
  return {
    ...plain,
    ...dead,
    date: new Date(found.header.dateMs).toISOString(),
    messageBytes: message.length,
  };
}
