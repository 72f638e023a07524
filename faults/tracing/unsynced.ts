import { SECTOR_BYTES } from '../sector.js';
import type { FailedSyncEvent, FileTrace, SyncEvent, WriteEvent } from './file-trace.js';

/**
 * The writes and syncs of one file that the strace log of one service shows, with the moment of the snapshot,
 * the copy of the data to which the file is compared.
 */
export interface TraceSinceSnapshot {
  trace: FileTrace;
  /**
   * Length of the strace log at the snapshot, in bytes. A call whose return is logged behind this offset
   * returned between the snapshot and the crash.
   */
  snapshotOffset: number;
}

/**
 * Returns the sectors that a machine crash may have lost, out of those that changed between the snapshot and
 * the crash.
 *
 * A sector counts as safe when any sync that covers it returned after the snapshot, because the sync may have
 * come after the change. The order of writes and syncs is known only if the log shows all writes to the file,
 * and only one service wrote it. In that case a sector is lost in two more situations:
 *
 * - Each write to it began after the last sync had begun.
 * - The first sync after its last write failed, and no earlier sync covered any of its writes. The kernel
 *   treats the page as clean after the failure, and a later sync succeeds without writing it.
 *
 * In doubt a sector counts as safe, in favour of the target.
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
    // Data that was written before a successful sync is on the disk. The snapshot does not hold that data, so
    // a sector with such a write cannot be reverted.
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

/**
 * Computes the range of every write in the file. Returns undefined when the offset of a write is not known.
 */
function locateWrites(writes: readonly WriteEvent[], sizeBytes: number): LocatedWrite[] | undefined {
  const located: LocatedWrite[] = [];
  let fileEnd = sizeBytes;
  for (const { start, length, entry } of writes) {
    if (start === 'unknown') return undefined;
    if (start === 'truncate') {
      // Give up when the file was cut shorter: a crash cannot bring back the old bytes behind newly written
      // ones.
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
