import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { ENTRY_BYTES, FLAGS, MAGIC, VERSION } from './reader.js';

/** An entry to be written. An omitted flag is false, and an omitted offset is 0. */
export interface NewEntry {
  /** Position on the device in bytes, a multiple of the log's sector size. */
  offset?: number;
  /** Bytes that were written; their number is a multiple of the log's sector size. */
  data?: Uint8Array;
  /** Number of bytes that were discarded. Such an entry has no data. */
  discardBytes?: number;
  flush?: boolean;
  fua?: boolean;
  metadata?: boolean;
  /** Text of a mark. Such an entry has neither offset nor data. */
  mark?: string;
}

/**
 * Writes a log in the format of dm-log-writes (see reader.ts), entry after entry. It updates the number of
 * complete entries in the head after each entry, so that a concurrent reader sees only complete entries.
 */
export class WriteLogWriter {
  readonly sectorBytes: number;
  readonly #fd: number;
  #entries = 0;
  #endOffset: number;

  /** Creates the file, or truncates it, and writes a head with no entries. */
  constructor(path: string, sectorBytes = 512) {
    this.sectorBytes = sectorBytes;
    this.#fd = openSync(path, 'w');
    const head = Buffer.alloc(sectorBytes);
    head.writeBigUInt64LE(MAGIC, 0);
    head.writeBigUInt64LE(VERSION, 8);
    head.writeUInt32LE(sectorBytes, 24);
    writeSync(this.#fd, head, 0, head.length, 0);
    this.#endOffset = sectorBytes;
  }

  /** Number of entries that were written. */
  get entries(): number {
    return this.#entries;
  }

  /** Appends an entry. @throws RangeError when the format cannot represent it. */
  add(entry: NewEntry): void {
    const { offset = 0, data = NO_DATA, discardBytes, mark = '' } = entry;
    const lengthBytes = discardBytes ?? data.length;
    const text = Buffer.from(mark, 'latin1');
    this.#check(entry, offset, lengthBytes, text.length);
    const flags =
      (entry.flush ? FLAGS.flush : 0) |
      (entry.fua ? FLAGS.fua : 0) |
      (discardBytes === undefined ? 0 : FLAGS.discard) |
      (entry.mark === undefined ? 0 : FLAGS.mark) |
      (entry.metadata ? FLAGS.metadata : 0);
    const block = Buffer.alloc(this.sectorBytes);
    block.writeBigUInt64LE(BigInt(offset / this.sectorBytes), 0);
    block.writeBigUInt64LE(BigInt(lengthBytes / this.sectorBytes), 8);
    block.writeBigUInt64LE(BigInt(flags), 16);
    block.writeBigUInt64LE(BigInt(text.length), 24);
    text.copy(block, ENTRY_BYTES);
    writeSync(this.#fd, block, 0, block.length, this.#endOffset);
    if (data.length > 0) writeSync(this.#fd, data, 0, data.length, this.#endOffset + block.length);
    this.#endOffset += block.length + data.length;
    this.#entries += 1;
    const count = Buffer.alloc(8);
    count.writeBigUInt64LE(BigInt(this.#entries));
    writeSync(this.#fd, count, 0, count.length, COUNT_OFFSET);
  }

  #check(entry: NewEntry, offset: number, lengthBytes: number, textBytes: number): void {
    if (offset % this.sectorBytes !== 0 || lengthBytes % this.sectorBytes !== 0)
      throw new RangeError(`${lengthBytes} bytes at ${offset}: expected multiples of ${this.sectorBytes}`);
    if (entry.discardBytes !== undefined && entry.data !== undefined)
      throw new RangeError('a discard has no data');
    if (entry.mark !== undefined && lengthBytes > 0) throw new RangeError('a mark has no data');
    if (textBytes > this.sectorBytes - ENTRY_BYTES)
      throw new RangeError(
        `a mark of ${textBytes} bytes: expected at most ${this.sectorBytes - ENTRY_BYTES}`,
      );
  }

  /** Truncates the file behind its last entry, and closes it. */
  close(): void {
    ftruncateSync(this.#fd, this.#endOffset);
    closeSync(this.#fd);
  }
}

const NO_DATA = new Uint8Array(0);
/** Offset in the head, in bytes, of the number of complete entries. */
const COUNT_OFFSET = 16;
