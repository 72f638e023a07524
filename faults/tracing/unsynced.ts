import { SECTOR_BYTES } from '../sector.js';
import type { FailedSyncEvent, FileTrace, SyncEvent, WriteEvent } from './file-trace.js';

/** What one log says of a file, and up to where the log went when the snapshot was taken. */
export interface TraceSinceSnapshot {
  trace: FileTrace;
  /** Length of the log at the snapshot: what had not returned by then falls between snapshot and crash. */
  snapshotOffset: number;
}

/**
 * Of the sectors that changed between snapshot and crash, those that a crash of the machine may have lost.
 *
 * A sector counts as safe when any sync that covers it returned after the snapshot: it may have come after the
 * change. Only where every byte that changed in a file was written by calls that the log shows, and only one service
 * wrote it, is the order known; then a sector is lost also after such a sync, if each write to it began only after
 * the last sync had begun. There it is lost, too, when the first sync after the last write to it failed: the kernel then
 * takes the page for clean, and a later sync succeeds without writing it. Doubt always speaks for the target.
 *
 * @param changed numbers of the sectors that differ, ascending.
 * @param snapshotSizeBytes size of the file at the snapshot; 0 when it did not exist.
 */
export function unsyncedSectors(
  changed: readonly number[],
  fileTraces: readonly TraceSinceSnapshot[],
  snapshotSizeBytes: number,
): number[] {
  const sinceSnapshot = fileTraces.map(({ trace, snapshotOffset }) => ({
    mapped: trace.mapped,
    events: trace.events.filter((event) => event.doneOffset > snapshotOffset),
    snapshotOffset,
  }));
  const syncs = sinceSnapshot.flatMap(({ events }) => events.filter(isSync));
  const writers = sinceSnapshot.filter(({ events }) => events.length > 0);
  const onlyWriter = writers[0];
  const failed = sinceSnapshot.flatMap(({ events }) => events.filter(isFailedSync));
  const orderedWrites =
    writers.length === 1 && onlyWriter !== undefined && !sinceSnapshot.some(({ mapped }) => mapped)
      ? locateWrites(onlyWriter.events.filter(isWrite), snapshotSizeBytes)
      : undefined;
  return changed.filter((sector) => {
    const start = sector * SECTOR_BYTES;
    const end = start + SECTOR_BYTES;
    const covering = syncs.filter((sync) => sync.start < end && sync.end > start);
    if (covering.length === 0) return true;
    const writes = orderedWrites?.filter((write) => write.start < end && write.end > start) ?? [];
    if (writes.length === 0) return false;
    const lastWrite = Math.max(...writes.map((write) => write.entry));
    const after = [...covering, ...failed.filter((sync) => sync.start < end && sync.end > start)]
      .filter((sync) => sync.entry > lastWrite)
      .sort((one, other) => one.entry - other.entry);
    // What was written before a sync that succeeded is on the disk, and the snapshot does not hold it.
    const unsyncedAt = (moment: number) => {
      const synced = covering.map((sync) => sync.entry).filter((entry) => entry < moment);
      return writes.every((write) => write.entry > Math.max(...synced));
    };
    const first = after[0];
    return unsyncedAt(Number.POSITIVE_INFINITY) || (first?.kind === 'failed-sync' && unsyncedAt(first.entry));
  });
}

interface LocatedWrite {
  start: number;
  end: number;
  entry: number;
}

/** Gives every write its place in the file; undefined when one of them has none that is known. */
function locateWrites(writes: readonly WriteEvent[], sizeBytes: number): LocatedWrite[] | undefined {
  const located: LocatedWrite[] = [];
  let fileEnd = sizeBytes;
  for (const { start, length, entry } of writes) {
    if (start === 'unknown') return undefined;
    if (start === 'truncate') {
      // What was cut off cannot come back behind what is written in its place.
      if (length < fileEnd) return undefined;
      located.push({ start: fileEnd, end: length, entry });
      fileEnd = length;
      continue;
    }
    const from = start === 'append' ? fileEnd : start;
    located.push({ start: from, end: from + length, entry });
    fileEnd = Math.max(fileEnd, from + length);
  }
  return located;
}

type Event = SyncEvent | FailedSyncEvent | WriteEvent;

function isSync(event: Event): event is SyncEvent {
  return event.kind === 'sync';
}

function isFailedSync(event: Event): event is FailedSyncEvent {
  return event.kind === 'failed-sync';
}

function isWrite(event: Event): event is WriteEvent {
  return event.kind === 'write';
}
