import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import type { Loss, Random } from '../fault.js';
import { pageHash } from '../files/loss-watch.js';
import { SECTOR_BYTES } from '../sector.js';
import type { LogEntry, WriteLog } from '../write-log/reader.js';

/** The result of a power cut of a recorded disk. */
export interface CutResult {
  /** Number of complete entries of the log at the cut. */
  entries: number;
  /** Number of complete entries that are on the medium because a flush came after them. */
  flushedEntries: number;
  /** Number of writes between the last flush and the cut. These writes could be lost. */
  unflushedWrites: number;
  /** Number of the unflushed writes that are on the medium as a whole. */
  keptWrites: number;
  /** Number of sectors of the torn write that are on the medium; 0 without a torn write. */
  tornSectors: number;
  /** Bytes of the writes before the cut that are not on the medium as a whole. */
  lostBytes: number;
  /** Hashes (`pageHash`) of the whole pages of these writes. */
  lostPages: Set<string>;
}

const CHUNK_BYTES = 1 << 20;
const PAGE_BYTES = 4096;

/**
 * Puts both images of a disk into the state after a power cut. Before the call, `stable` holds the device as
 * it was when the recording began, and `live` as it is now. After the call, both hold everything that a flush
 * or FUA covers, and those writes since the last flush that `loss` leaves. The time depends on the size of
 * the log, not on the size of the device.
 * @param cutAt number of log entries that were complete at the cut.
 */
export function cutPower(
  log: WriteLog,
  cutAt: number,
  images: { stable: string; live: string },
  loss: Loss,
  random: Random,
): CutResult {
  const { flushedEntries, unflushed } = splitAtLastFlush(log, cutAt);
  const survivors = chooseSurvivors(
    unflushed.filter((entry) => !entry.fua),
    loss,
    random,
  );
  const stable = openSync(images.stable, 'r+');
  const live = openSync(images.live, 'r+');
  try {
    const undone: LogEntry[] = [];
    let lostBytes = 0;
    const lostPages = new Set<string>();
    for (const entry of log.entries()) {
      if (entry.lengthBytes === 0) continue;
      const isTorn = survivors.torn?.entry.index === entry.index;
      const survives =
        entry.index < flushedEntries ||
        (entry.index < cutAt && (entry.fua || survivors.whole.has(entry.index)));
      if (survives) applyEntry(log, entry, stable);
      else {
        if (isTorn)
          for (const sector of survivors.torn?.sectors ?? []) applyEntry(log, entry, stable, sector);
        if (entry.index < cutAt) {
          lostBytes += entry.lengthBytes;
          addPageHashes(log, entry, lostPages);
        }
        undone.push(entry);
      }
    }
    for (const entry of undone) copyRange(stable, live, entry.offset, entry.lengthBytes);
    return {
      entries: cutAt,
      flushedEntries,
      unflushedWrites: unflushed.length,
      keptWrites: survivors.whole.size,
      tornSectors: survivors.torn?.sectors.length ?? 0,
      lostBytes,
      lostPages,
    };
  } finally {
    closeSync(stable);
    closeSync(live);
  }
}

/** Adds the hashes of the pages of a write. A discard has none. */
function addPageHashes(log: WriteLog, entry: LogEntry, hashes: Set<string>): void {
  if (entry.discard || entry.lengthBytes > CHUNK_BYTES) return;
  const bytes = Buffer.alloc(entry.lengthBytes);
  log.readData(entry, 0, bytes);
  for (let at = 0; at + PAGE_BYTES <= bytes.length; at += PAGE_BYTES) hashes.add(pageHash(bytes, at));
}

/**
 * Splits the entries before a cut at the last flush: the number of entries before it, and the writes after
 * it.
 */
export function splitAtLastFlush(
  log: WriteLog,
  cutAt: number,
): { flushedEntries: number; unflushed: LogEntry[] } {
  let flushedEntries = 0;
  let tail: LogEntry[] = [];
  for (const entry of log.entries(cutAt)) {
    if (entry.flush) {
      flushedEntries = entry.index;
      tail = [];
    }
    if (entry.lengthBytes > 0) tail.push(entry);
  }
  return { flushedEntries, unflushed: tail };
}

/** The unflushed writes that reach the medium: some as a whole (entry numbers), and at most one in part. */
interface Survivors {
  whole: Set<number>;
  torn: { entry: LogEntry; sectors: number[] } | undefined;
}

function chooseSurvivors(unflushed: readonly LogEntry[], loss: Loss, random: Random): Survivors {
  if (loss === 'all-lost' || unflushed.length === 0) return { whole: new Set(), torn: undefined };
  const count = random.int(unflushed.length + 1);
  const whole = new Set(unflushed.slice(0, count).map(({ index }) => index));
  const next = unflushed[count];
  if (loss === 'prefix' || next === undefined || next.discard) return { whole, torn: undefined };
  const sectors = Array.from({ length: next.lengthBytes / SECTOR_BYTES }, (_, sector) => sector);
  return { whole, torn: { entry: next, sectors: sectors.filter(() => random.int(2) === 0) } };
}

/**
 * Applies a logged write (or discard) to an image.
 * @param image file descriptor.
 * @param sector number of the only sector to apply; default: all.
 */
export function applyEntry(log: WriteLog, entry: LogEntry, image: number, sector?: number): void {
  const begin = sector === undefined ? 0 : sector * SECTOR_BYTES;
  const end = sector === undefined ? entry.lengthBytes : begin + SECTOR_BYTES;
  for (let from = begin; from < end; from += CHUNK_BYTES) {
    const chunk = scratch.subarray(0, Math.min(CHUNK_BYTES, end - from));
    if (entry.discard) chunk.fill(0);
    else log.readData(entry, from, chunk);
    writeSync(image, chunk, 0, chunk.length, entry.offset + from);
  }
}

function copyRange(from: number, to: number, offset: number, lengthBytes: number): void {
  for (let done = 0; done < lengthBytes; done += CHUNK_BYTES) {
    const chunk = scratch.subarray(0, Math.min(CHUNK_BYTES, lengthBytes - done));
    // The bytes behind the end of an image count as zeros.
    chunk.fill(0, readSync(from, chunk, 0, chunk.length, offset + done));
    writeSync(to, chunk, 0, chunk.length, offset + done);
  }
}

const scratch = Buffer.alloc(CHUNK_BYTES);
