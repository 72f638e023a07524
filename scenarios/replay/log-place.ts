import type { HistoryEvent } from '../../conformance/history/events.js';
import type { CrashModel } from '../../faults/write-log/model.js';
import { formatNumbers } from '../../faults/write-log/state.js';

/** So many entries are told before and behind a place. */
const AROUND = 3;
const MOST_NAMED = 5;

/**
 * What there is to see at a place of a log, as lines: the entries around it, what a cut there leaves open, and which
 * messages are confirmed by then.
 * @param at so many entries are complete; the next one is number `at`.
 * @param events of the run whose log it is; none where it is the log of a recovery, in which nothing is confirmed.
 */
export function tellPlace(model: CrashModel, at: number, events: readonly HistoryEvent[]): string[] {
  const { entries } = model;
  const around = entries.slice(Math.max(0, at - AROUND), at + AROUND + 1);
  const lines = around.map((entry) => `${entry.index === at ? '>' : ' '} ${entry.index}: ${describe(entry)}`);
  if (at >= entries.length) lines.push(`> ${at}: the end of the log`);
  const open = model.optional(at);
  lines.push(
    open.length === 0
      ? `a cut here leaves nothing open: the last flush was entry ${model.floor(at)}`
      : `a cut here leaves open, since the last flush: ${formatNumbers(open)}`,
  );
  const confirmed = events.flatMap((event) =>
    event.kind === 'placed' && event.what === 'confirmed' && event.entries <= at ? [event] : [],
  );
  if (confirmed.length === 0) return lines;
  const here = confirmed.filter(({ entries: place }) => place === at).map(({ id }) => id);
  const some = here.slice(0, MOST_NAMED).join(', ');
  const more = here.length > MOST_NAMED ? ` and ${here.length - MOST_NAMED} more` : '';
  lines.push(
    `confirmed by now: ${confirmed.length} messages${here.length === 0 ? '' : `, just now ${some}${more}`}`,
  );
  return lines;
}

function describe(entry: CrashModel['entries'][number]): string {
  if (entry.mark !== undefined) return `mark ${entry.mark}`;
  const what = entry.discard ? 'discard' : 'write';
  const place = entry.lengthBytes > 0 ? [`${what} of ${entry.lengthBytes} bytes at ${entry.offset}`] : [];
  const flags = [...(entry.flush ? ['flush'] : []), ...(entry.fua ? ['FUA'] : [])];
  return [...flags, ...place].join(', ');
}
