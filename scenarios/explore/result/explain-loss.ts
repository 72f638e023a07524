import type { Recording } from '../../../faults/crash-states/materialise.js';
import { formatNumbers } from '../../../faults/write-log/state.js';

/** The location of a message on the disk: the offset at which its mark was written. */
interface MessageLocation {
  offset: number;
  lengthBytes: number;
  /** The mark, or the part of it that the first of two writes contains. */
  markHead: Buffer;
}

/**
 * Explains which sync was missing or too late for a message that a crash state has lost.
 * @param mark bytes at the beginning of the message that occur nowhere else.
 * @param lengthBytes length of the message.
 * @param confirmedAt number of log entries that were complete when its confirmation had come.
 * @returns a few lines of text for people.
 */
export function explainLoss(
  recording: Recording,
  mark: Buffer,
  lengthBytes: number,
  confirmedAt: number,
): string[] {
  const location = locateMessage(recording, mark, lengthBytes);
  const confirmed = `confirmed when ${confirmedAt} requests to the disk were complete`;
  if (location === undefined)
    return [
      confirmed,
      'its bytes are in no write of the log: they were never sent to the disk, or not as they came (compressed, encoded)',
    ];
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
  const lines = [`its ${lengthBytes} bytes were written by entries ${formatNumbers(needed)}`, confirmed];
  const [worst] = unflushed.sort(
    (a, b) => (b.flush ?? Number.MAX_SAFE_INTEGER) - (a.flush ?? Number.MAX_SAFE_INTEGER),
  );
  if (worst === undefined) {
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
    lines.push(`no flush came after entry ${worst.index}: the sync is missing`);
  } else {
    lines.push(`the first flush after entry ${worst.index} is entry ${worst.flush}: the sync came too late`);
  }
  return lines;
}

const PAGE_BYTES = 4096;

/** Smallest part of a mark that identifies a message, in bytes. A shorter part may occur anywhere. */
const MIN_MARK_PART_BYTES = 16;

/** Finds the first location to which the mark was written, by one write or by two adjacent writes. */
function locateMessage(recording: Recording, mark: Buffer, lengthBytes: number): MessageLocation | undefined {
  const halves: MessageLocation[] = [];
  for (const { entry, bytes } of writesWithData(recording)) {
    const at = bytes.indexOf(mark);
    if (at >= 0) return { offset: entry.offset + at, lengthBytes, markHead: mark };
    for (let length = Math.min(mark.length, bytes.length) - 1; length >= MIN_MARK_PART_BYTES; length--) {
      const markHead = mark.subarray(0, length);
      if (!bytes.subarray(-length).equals(markHead)) continue;
      halves.push({ offset: entry.offset + bytes.length - length, lengthBytes, markHead });
    }
  }
  return halves.find(({ offset, markHead: head }) => {
    const rest = mark.subarray(head.length);
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
