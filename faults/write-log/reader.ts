import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';

/**
 * Reads logs in the format of dm-log-writes, which qemu's `blklogwrites` writes too (little-endian, S = sector size):
 *
 *     block 0   u64 magic, u64 version (1), u64 number of complete entries, u32 S, padded to S
 *     then for each entry one block of S bytes:
 *               u64 first sector, u64 sectors, u64 flags, u64 length of a mark's text, the text itself
 *               and sectors × S bytes of data, unless DISCARD
 *
 * Only what is asked for is held in memory: an entry is its head and the place of its data.
 *
 * qemu writes an entry when its request is done. The kernel's dm-log-writes differs, and both are read here:
 *
 * - A write stands in the log only when a flush has covered it, before that flush. A FUA write and a mark stand there at
 *   once, before writes that were done earlier and are not flushed: a mark means "all before it" only after a sync. Of two
 *   writes to one place, the second FUA and no flush between, the second comes first.
 * - What was never flushed is put in at the end, when the device is removed, and then the mark `dm-log-writes-end`.
 * - The number of entries at the head is brought up to date by FUA writes, marks and the end alone.
 * - A flush with data stands there as two: a bare flush, which has the place and the FUA of the write, and the write.
 * - A discard is logged even where the device below has none and does nothing.
 */
export const MAGIC = 0x6a736677736872n;
export const VERSION = 1n;
const HEAD_BYTES = 28;
export const ENTRY_BYTES = 32;
const MIN_SECTOR_BYTES = 512;
const MAX_SECTOR_BYTES = 65_536;
/** In which the kernel counts, whatever the device's sectors are. */
const BLOCK_DEVICE_UNIT_BYTES = 512;

export const FLAGS = { flush: 1, fua: 2, discard: 4, mark: 8, metadata: 16 } as const;
const ALL_FLAGS = FLAGS.flush | FLAGS.fua | FLAGS.discard | FLAGS.mark | FLAGS.metadata;

/** `foreign`: not such a log; `truncated`: the file ends too early; `damaged`: an entry that cannot be. */
export type LogProblem = 'foreign' | 'truncated' | 'damaged';

export class LogWritesError extends Error {
  override readonly name = 'LogWritesError';
  readonly code: LogProblem;

  constructor(code: LogProblem, message: string) {
    super(message);
    this.code = code;
  }
}

export interface LogEntry {
  /** Number of the entry in the log, from 0. */
  index: number;
  /** Place on the device, in bytes. */
  offset: number;
  /** Bytes that were written (or discarded) there; 0 for a bare flush or a mark. */
  lengthBytes: number;
  /** Everything that was written before this entry was flushed to the medium by it. */
  flush: boolean;
  /** The write of this entry was itself on the medium when it was answered. */
  fua: boolean;
  discard: boolean;
  metadata: boolean;
  /** The text of a mark, or undefined. */
  mark: string | undefined;
  /** Place of the data in the log file; it has `lengthBytes` bytes unless `discard`. */
  dataAt: number;
}

/** An open log, which may still be written to: what is read of it are the entries that were complete at a moment. */
export class WriteLog {
  readonly path: string;
  readonly sectorBytes: number;
  readonly #fd: number;

  /** @throws LogWritesError when the file is not such a log. */
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

  /** How many entries are complete now. */
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
   * The entries in order, from the first to the one before `end`, which is at most `completeEntries()`.
   * @throws LogWritesError truncated when the file ends before, damaged when an entry cannot be.
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

  /** Reads part of an entry's data into `into`: from byte `from` of the data, as many bytes as fit. */
  readData(entry: LogEntry, from: number, into: Uint8Array): void {
    const length = readSync(this.#fd, into, 0, into.length, entry.dataAt + from);
    if (length < into.length) {
      throw new LogWritesError('truncated', `${this.path}: the file ends within entry ${entry.index}`);
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** The kernel's log is a block device, whose length stat does not tell. */
function sizeOf(fd: number): number {
  const stat = fstatSync(fd);
  if (!stat.isBlockDevice()) return stat.size;
  const { rdev } = stat;
  const [major, minor] = [(rdev >>> 8) & 0xfff, (rdev & 0xff) | ((rdev >>> 12) & 0xfff00)];
  return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * BLOCK_DEVICE_UNIT_BYTES;
}
