import type { Recording } from '../../faults/crash-states/materialise.js';
import { formatNumbers } from '../../faults/crash-states/state.js';

/** Where a message lies on the disk: the mark that only it carries was found there. */
interface Place {
  offset: number;
  lengthBytes: number;
}

/**
 * Says which sync was missing or too late for a message that a crash state has lost.
 * @param mark bytes that stand in the message at its beginning and nowhere else.
 * @param lengthBytes of the message.
 * @param confirmedAt so many entries were complete when its confirmation had come.
 * @returns a few lines for people.
 */
export function blame(
  recording: Recording,
  mark: Buffer,
  lengthBytes: number,
  confirmedAt: number,
): string[] {
  const place = find(recording, mark, lengthBytes);
  const confirmed = `confirmed when ${confirmedAt} requests to the disk were complete`;
  if (place === undefined)
    return [confirmed, 'its bytes are in no write of the log: they were never sent to the disk'];
  const { entries } = recording.model;
  const writes = entries.filter(
    ({ offset, lengthBytes: length, discard }) =>
      !discard && offset < place.offset + place.lengthBytes && offset + length > place.offset,
  );
  // Later writes carry the same bytes again: the first one of each page is the one that matters.
  const pages = new Map<number, number>();
  for (const write of writes) {
    const from = Math.max(write.offset, place.offset);
    const to = Math.min(write.offset + write.lengthBytes, place.offset + place.lengthBytes);
    const carries = write.index >= firstWith(recording, mark, place, writes[0]?.index ?? 0);
    for (let page = Math.floor(from / PAGE); carries && page * PAGE < to; page++)
      if (!pages.has(page)) pages.set(page, write.index);
  }
  const needed = [...new Set(pages.values())].sort((a, b) => a - b);
  const flushes = needed.map((index) => {
    const flush = entries.find(
      (entry) => (entry.flush && entry.index > index) || (entry.index === index && entry.fua),
    );
    return { index, flush: flush?.index };
  });
  const late = flushes.filter(({ flush }) => flush === undefined || flush >= confirmedAt);
  const lines = [`its ${lengthBytes} bytes were written by entries ${formatNumbers(needed)}`, confirmed];
  const [worst] = late.sort(
    (a, b) => (b.flush ?? Number.MAX_SAFE_INTEGER) - (a.flush ?? Number.MAX_SAFE_INTEGER),
  );
  if (worst === undefined) {
    lines.push('all of them had been flushed by then: the recovery does not find what is there');
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

const PAGE = 4096;

/** The last place to which the mark was written. */
function find({ log, model }: Recording, mark: Buffer, lengthBytes: number): Place | undefined {
  for (const entry of model.entries) {
    if (entry.lengthBytes === 0 || entry.discard) continue;
    const bytes = Buffer.alloc(entry.lengthBytes);
    log.readData(entry, 0, bytes);
    const at = bytes.indexOf(mark);
    if (at >= 0) return { offset: entry.offset + at, lengthBytes };
  }
  return undefined;
}

/** The first write that has the mark at its place: earlier ones there were of other messages. */
function firstWith({ log, model }: Recording, mark: Buffer, place: Place, from: number): number {
  for (const entry of model.entries.slice(from)) {
    const at = place.offset - entry.offset;
    if (entry.discard || at < 0 || at + mark.length > entry.lengthBytes) continue;
    const bytes = Buffer.alloc(mark.length);
    log.readData(entry, at, bytes);
    if (bytes.equals(mark)) return entry.index;
  }
  return from;
}
