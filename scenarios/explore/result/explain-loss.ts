import { encodedMarks, type TextEncoding } from '../../../conformance/protocols/encoded-mark.js';
import type { Recording } from '../../../faults/crash-states/materialise.js';
import { formatNumbers } from '../../../faults/write-log/state.js';

/** The location of a message on the disk: the offset at which its mark was written. */
interface MessageLocation {
  offset: number;
  lengthBytes: number;
  /** The mark, or the part of it that the first of two writes contains; encoded as the target stores it. */
  markHead: Buffer;
  encoding: TextEncoding;
}

/** What explains the loss of a message: lines for people, and the files to which the message was written. */
export interface LossExplanation {
  lines: string[];
  files: string[];
  /**
   * `not-written`: the message is in no write. `not-synced`: no flush came after its writes. `synced-late`: the flush,
   * or the write, came after the confirmation. `flushed`: everything was on the medium by then.
   */
  kind: 'not-written' | 'not-synced' | 'synced-late' | 'flushed';
  /** Entries that write the message. */
  writes: number[];
  /** Entry of the first flush after the worst of these writes; null when none came. */
  flushAt: number | null;
}

/**
 * Explains which sync was missing or too late for a message that a crash state has lost.
 * @param mark bytes at the beginning of the message that occur nowhere else.
 * @param lengthBytes length of the message.
 * @param confirmedAt number of log entries that were complete when its confirmation had come.
 * @param ownersOf returns the files to which writes belong, by entry; default: the files are not named.
 */
export function explainLoss(
  recording: Recording,
  mark: Buffer,
  lengthBytes: number,
  confirmedAt: number,
  ownersOf: (entries: readonly number[]) => ReadonlyMap<number, string> = () => new Map(),
): LossExplanation {
  const location = locateMessage(recording, mark, lengthBytes);
  const confirmed = `confirmed when ${confirmedAt} requests to the disk were complete`;
  if (location === undefined) {
    const nowhere =
      'its bytes are in no write of the log: they were never sent to the disk, or in a form that the kit cannot read, such as compressed';
    return { lines: [confirmed, nowhere], files: [], kind: 'not-written', writes: [], flushAt: null };
  }
  const { entries } = recording.model;
  const writes = entries.filter(
    ({ offset, lengthBytes: length, discard }) =>
      !discard && offset < location.offset + location.lengthBytes && offset + length > location.offset,
  );
  // Later writes repeat the same bytes, for example when the page is written again. The first write of each
  // page decides when the message was on the disk.
  const pages = new Map<number, number>();
  for (const write of writes) {
    const from = Math.max(write.offset, location.offset);
    const to = Math.min(write.offset + write.lengthBytes, location.offset + location.lengthBytes);
    const hasMark = write.index >= firstEntryWithMark(recording, location, writes[0]?.index ?? 0);
    for (let page = Math.floor(from / PAGE_BYTES); hasMark && page * PAGE_BYTES < to; page++)
      if (!pages.has(page)) pages.set(page, write.index);
  }
  const needed = [...new Set(pages.values())].sort((a, b) => a - b);
  const flushes = needed.map((index) => {
    const flush = entries.find(
      (entry) => (entry.flush && entry.index > index) || (entry.index === index && entry.fua),
    );
    return { index, flush: flush?.index };
  });
  const unflushed = flushes.filter(({ flush }) => flush === undefined || flush >= confirmedAt);
  const form = location.encoding === 'plain' ? '' : `, as ${location.encoding}`;
  const owners = ownersOf(needed);
  const files = [...new Set(needed.flatMap((index) => owners.get(index) ?? []))];
  const into = files.length === 0 ? '' : ` to ${files.join(', ')}`;
  const lines = [
    `its ${lengthBytes} bytes were written${into} by entries ${formatNumbers(needed)}${form}`,
    confirmed,
  ];
  const [worst] = unflushed.sort(
    (a, b) => (b.flush ?? Number.MAX_SAFE_INTEGER) - (a.flush ?? Number.MAX_SAFE_INTEGER),
  );
  const flushAt =
    worst === undefined
      ? (entries.find((entry) => entry.flush && entry.index >= confirmedAt)?.index ?? null)
      : (worst.flush ?? null);
  let kind: LossExplanation['kind'] = 'synced-late';
  if (worst === undefined) {
    kind = 'flushed';
    const next = entries.find((entry) => entry.flush && entry.index >= confirmedAt);
    lines.push(
      'all of them had been flushed by then: what leads to them had not (a size, a name, an index), or the recovery does not find it',
      next === undefined
        ? 'no flush came after the confirmation'
        : `the first flush after the confirmation is entry ${next.index}`,
    );
  } else if (worst.index >= confirmedAt) {
    lines.push(
      `entry ${worst.index} was written only after the confirmation: the sync that it needs came too late`,
    );
  } else if (worst.flush === undefined) {
    kind = 'not-synced';
    lines.push(`no flush came after entry ${worst.index}: the sync is missing`);
  } else {
    lines.push(`the first flush after entry ${worst.index} is entry ${worst.flush}: the sync came too late`);
  }
  return { lines, files, kind, writes: needed, flushAt };
}

const PAGE_BYTES = 4096;

/** Smallest part of a mark that identifies a message, in bytes. A shorter part may occur anywhere. */
const MIN_MARK_PART_BYTES = 16;

/**
 * Finds the first location to which the mark was written, in any encoding, by one write or by two adjacent writes.
 */
function locateMessage(recording: Recording, mark: Buffer, lengthBytes: number): MessageLocation | undefined {
  const forms = encodedMarks(mark).map(({ encoding, bytes, growth }) => ({
    encoding,
    form: bytes,
    lengthBytes: Math.ceil(lengthBytes * growth),
  }));
  const halves: (MessageLocation & { rest: Buffer })[] = [];
  for (const { entry, bytes } of writesWithData(recording)) {
    for (const { form, ...how } of forms) {
      const at = bytes.indexOf(form);
      if (at >= 0) return { offset: entry.offset + at, markHead: form, ...how };
      for (let length = Math.min(form.length, bytes.length) - 1; length >= MIN_MARK_PART_BYTES; length--) {
        const markHead = form.subarray(0, length);
        if (!bytes.subarray(-length).equals(markHead)) continue;
        const offset = entry.offset + bytes.length - length;
        halves.push({ offset, markHead, rest: form.subarray(length), ...how });
      }
    }
  }
  return halves.find(({ offset, markHead: head, rest }) => {
    const next = offset + head.length;
    for (const { entry, bytes } of writesWithData(recording)) {
      const at = next - entry.offset;
      if (at >= 0 && bytes.subarray(at, at + rest.length).equals(rest)) return true;
    }
    return false;
  });
}

/** Yields the writes of a log with their bytes. */
function* writesWithData({ log, model }: Recording) {
  for (const entry of model.entries) {
    if (entry.lengthBytes === 0 || entry.discard) continue;
    const bytes = Buffer.alloc(entry.lengthBytes);
    log.readData(entry, 0, bytes);
    yield { entry, bytes };
  }
}

/**
 * Returns the number of the first entry, from entry `from` on, that writes the mark at the location of the
 * message. Earlier writes to this location belonged to other messages.
 */
function firstEntryWithMark(
  { log, model }: Recording,
  { offset, markHead: head }: MessageLocation,
  from: number,
): number {
  for (const entry of model.entries.slice(from)) {
    const at = offset - entry.offset;
    if (entry.discard || at < 0 || at + head.length > entry.lengthBytes) continue;
    const bytes = Buffer.alloc(head.length);
    log.readData(entry, at, bytes);
    if (bytes.equals(head)) return entry.index;
  }
  return from;
}
