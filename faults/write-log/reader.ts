import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';

/*
 * Reader of logs in the format of dm-log-writes, which qemu's `blklogwrites` writes too (little-endian, S =
 * sector size):
 *
 *     block 0   u64 magic, u64 version (1), u64 number of complete entries, u32 S, padded to S
 *     then for each entry one block of S bytes:
 *               u64 first sector, u64 sectors, u64 flags, u64 length of a mark's text, the text itself
 *               and sectors × S bytes of data, unless DISCARD
 *
 * Memory holds only what was requested: an entry consists of its header and the position of its data in the
 * file.
 *
 * qemu writes an entry when its request is complete. The kernel's dm-log-writes differs, and this reader
 * supports both:
 *
 * - The kernel logs a write only when a flush has covered it, before that flush. It logs a FUA write and a
 *   mark at once, before earlier writes that are not flushed. A mark therefore means "everything before it"
 *   only after a sync. If two writes go to the same position, the second is FUA and no flush is between them,
 *   the second comes first in the log.
 * - Writes that were never flushed are logged at the end, when the device is removed, and then the mark
 *   `dm-log-writes-end`.
 * - Only FUA writes, marks and the end update the number of entries in the head.
 * - A flush with data becomes two entries: a bare flush, with the position and the FUA flag of the write, and
 *   the write.
 * - A discard is logged even if the device below does not support discards and does nothing.
 */

/** The first eight bytes of a log, as a little-endian number. */
export const MAGIC = 0x6a736677736872n;
/** The version of the format. */
export const VERSION = 1n;
const HEAD_BYTES = 28;
/** Size in bytes of an entry's header, without the text of a mark and the padding. */
export const ENTRY_BYTES = 32;
const MIN_SECTOR_BYTES = 512;
const MAX_SECTOR_BYTES = 65_536;
/** Unit in bytes of device sizes in sysfs. It does not depend on the sector size of the device. */
const BLOCK_DEVICE_UNIT_BYTES = 512;

/** Flag bits of an entry, as in the kernel's dm-log-writes. */
export const FLAGS = { flush: 1, fua: 2, discard: 4, mark: 8, metadata: 16 } as const;
const ALL_FLAGS = FLAGS.flush | FLAGS.fua | FLAGS.discard | FLAGS.mark | FLAGS.metadata;

/**
 * `foreign`: the file is not a log; `truncated`: the file ends too early; `damaged`: an entry is impossible.
 */
export type LogProblem = 'foreign' | 'truncated' | 'damaged';

/** Thrown when a file cannot be read as a write log. */
export class LogWritesError extends Error {
  override readonly name = 'LogWritesError';
  readonly code: LogProblem;

  constructor(code: LogProblem, message: string) {
    super(message);
    this.code = code;
  }
}

/**
 * One entry of a log: a write, a discard, a flush or a mark. A mark is a text that a program puts into the log
 * to find the position again.
 */
export interface LogEntry {
  /** Number of the entry in the log, from 0. */
  index: number;
  /** Position on the device, in bytes. */
  offset: number;
  /** Number of bytes that were written or discarded; 0 for a bare flush or a mark. */
  lengthBytes: number;
  /** True when the entry flushed everything that was written before it. */
  flush: boolean;
  /** True when the write of this entry was on the medium when it was completed (force unit access). */
  fua: boolean;
  /** True when the bytes were discarded; the entry then has no data. */
  discard: boolean;
  /** True when the filesystem marked the write as metadata. */
  metadata: boolean;
  /** The text of a mark, or undefined. */
  mark: string | undefined;
  /** Position of the data in the log file, in bytes; `lengthBytes` bytes unless `discard`. */
  dataAt: number;
}

/** An open log. It may still be growing: a read returns the entries that are complete at that moment. */
export class WriteLog {
  readonly path: string;
  readonly sectorBytes: number;
  readonly #fd: number;

  /** @throws LogWritesError when the file is not a log in the format of dm-log-writes. */
  constructor(path: string) {
    this.path = path;
    this.#fd = openSync(path, 'r');
    try {
      this.sectorBytes = this.#readHead().sectorBytes;
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  /** Returns the number of entries that are complete now. */
  completeEntries(): number {
    return this.#readHead().entries;
  }

  #readHead(): { entries: number; sectorBytes: number } {
    const head = Buffer.alloc(HEAD_BYTES);
    const length = readSync(this.#fd, head, 0, HEAD_BYTES, 0);
    if (length < HEAD_BYTES) {
      throw new LogWritesError(
        'truncated',
        `${this.path}: expected a write log, the file has ${length} bytes`,
      );
    }
    if (head.readBigUInt64LE(0) !== MAGIC) {
      throw new LogWritesError(
        'foreign',
        `${this.path}: expected a write log (dm-log-writes), its mark is missing`,
      );
    }
    const version = head.readBigUInt64LE(8);
    if (version !== VERSION) {
      throw new LogWritesError('foreign', `${this.path}: expected version 1 of the format, found ${version}`);
    }
    const sectorBytes = head.readUInt32LE(24);
    const isPower = (sectorBytes & (sectorBytes - 1)) === 0;
    if (!isPower || sectorBytes < MIN_SECTOR_BYTES || sectorBytes > MAX_SECTOR_BYTES) {
      throw new LogWritesError('damaged', `${this.path}: sectors of ${sectorBytes} bytes cannot be`);
    }
    return { entries: Number(head.readBigUInt64LE(16)), sectorBytes };
  }

  /**
   * Yields the entries in order, from number 0 to `end` - 1. `end` is at most `completeEntries()`.
   * @throws LogWritesError `truncated` when the file ends before, `damaged` when an entry is impossible.
   */
  *entries(end: number = this.completeEntries()): Generator<LogEntry, void, undefined> {
    const fileBytes = sizeOf(this.#fd);
    const block = Buffer.alloc(this.sectorBytes);
    let at = this.sectorBytes;
    for (let index = 0; index < end; index++) {
      const length = readSync(this.#fd, block, 0, block.length, at);
      const entry = length < ENTRY_BYTES ? undefined : this.#decode(block, index, at);
      const next = entry && entry.dataAt + (entry.discard ? 0 : entry.lengthBytes);
      if (entry === undefined || next === undefined || next > fileBytes) {
        throw new LogWritesError(
          'truncated',
          `${this.path}: the file ends within entry ${index}, expected ${end} entries`,
        );
      }
      yield entry;
      at = next;
    }
  }

  #decode(block: Buffer, index: number, at: number): LogEntry {
    const readU64 = (place: number): number => Number(block.readBigUInt64LE(place));
    const [sector, sectors, flags, textBytes] = [readU64(0), readU64(8), readU64(16), readU64(24)];
    const offset = sector * this.sectorBytes;
    const lengthBytes = sectors * this.sectorBytes;
    const isMark = (flags & FLAGS.mark) !== 0;
    const possible =
      flags <= ALL_FLAGS &&
      Number.isSafeInteger(offset + lengthBytes) &&
      textBytes <= (isMark ? this.sectorBytes - ENTRY_BYTES : 0) &&
      !(isMark && sectors > 0);
    if (!possible) {
      throw new LogWritesError(
        'damaged',
        `${this.path}: entry ${index} at byte ${at} cannot be (sector ${sector}, ${sectors} sectors, flags ${flags}, text ${textBytes})`,
      );
    }
    return {
      index,
      offset,
      lengthBytes,
      flush: (flags & FLAGS.flush) !== 0,
      fua: (flags & FLAGS.fua) !== 0,
      discard: (flags & FLAGS.discard) !== 0,
      metadata: (flags & FLAGS.metadata) !== 0,
      mark: isMark ? block.toString('latin1', ENTRY_BYTES, ENTRY_BYTES + textBytes) : undefined,
      dataAt: at + this.sectorBytes,
    };
  }

  /**
   * Fills `into` with an entry's data, from byte `from` of the data on.
   * @throws LogWritesError `truncated` when the file ends before.
   */
  readData(entry: LogEntry, from: number, into: Uint8Array): void {
    const length = readSync(this.#fd, into, 0, into.length, entry.dataAt + from);
    if (length < into.length) {
      throw new LogWritesError('truncated', `${this.path}: the file ends within entry ${entry.index}`);
    }
  }

  /** Closes the file. */
  close(): void {
    closeSync(this.#fd);
  }
}

/**
 * Returns the size of a log in bytes. The kernel's log is a block device, whose size stat does not report.
 */
function sizeOf(fd: number): number {
  const stat = fstatSync(fd);
  if (!stat.isBlockDevice()) return stat.size;
  const { rdev } = stat;
  const [major, minor] = [(rdev >>> 8) & 0xfff, (rdev & 0xff) | ((rdev >>> 12) & 0xfff00)];
  return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * BLOCK_DEVICE_UNIT_BYTES;
}
