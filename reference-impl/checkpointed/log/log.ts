import { assert, QueueError } from '../../common/platform/errors.js';
import type { Kernel } from '../../common/platform/kernel.js';
import type { ChecksumKey } from '../../common/record/checksum.js';
import { writeWhole } from '../files.js';
import {
  type LogRecord,
  OPERATION,
  type Operation,
  putRecord,
  RECORD_HEADER_BYTES,
  recordExtent,
} from './record.js';
import { type SegmentRing, segmentPath } from './segment-ring.js';

/** One operation of a transaction that is to be logged. */
export interface StagedOperation {
  operation: Operation;
  /** Number of the queue; 0 in a creation, whose queue gets the position of the record as its number. */
  queue: number;
  /** Number of the consumed message; 0 in other operations. */
  number: number;
  id: string;
  /** Length of the id as UTF-8, in bytes. It is here because it is needed several times, and costs a call each time. */
  idBytes: number;
  body: Buffer;
  /** Position of its record. `append` sets it. */
  position: number;
}

/** Generation and first position of a log. */
export interface LogStart {
  generation: number;
  /** Position of the first record, the beginning of a segment. */
  position: number;
}

/** The place of the log and its bounds. */
export interface LogGeometry {
  directory: string;
  segmentBytes: number;
  /** Upper bound of the number of segments. */
  segments: number;
  key: ChecksumKey;
}

/** Consecutive records that lie in one segment. */
interface Chunk {
  position: number;
  bytes: Buffer;
}

const NOTHING = Buffer.alloc(0);
/** Size of the buffer that every batch reuses. A larger batch gets its own buffer. */
const SCRATCH_BYTES = 256 * 1024;
/** Duration below which a sync may block this thread, in milliseconds. */
const QUICK_SYNC_MS = 1;

/**
 * The log between checkpoints: a ring of preallocated segments. `append` writes the records of many transactions with one
 * write and one fdatasync. It must not be called again before its promise has settled.
 */
export class Log {
  readonly #kernel: Kernel;
  readonly #ring: SegmentRing;
  readonly #geometry: LogGeometry;
  readonly #generation: number;
  /** Descriptors of the open segments by sequence number: the current one, and those into which a batch continues. */
  readonly #open = new Map<number, number>();
  /** The segment that was written to last. */
  #current: number | undefined;
  #position: number;
  /** Position up to which all records are on the disk. */
  #synced: number;
  /** Position up to which the newest record on the disk states that the log is synced. */
  #stated: number;
  #isBroken = false;
  /** Duration of the last sync, in milliseconds. */
  #lastSyncMs = Number.POSITIVE_INFINITY;
  /** Holds the records of each batch until they are written. */
  readonly #scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);

  constructor(geometry: LogGeometry, ring: SegmentRing, { generation, position }: LogStart, kernel: Kernel) {
    this.#kernel = kernel;
    this.#ring = ring;
    this.#geometry = geometry;
    this.#generation = generation;
    this.#position = position;
    this.#synced = position;
    this.#stated = position;
  }

  /** Position behind the last record. */
  get position(): number {
    return this.#position;
  }

  /** Whether the newest records are on the disk, but no record states this yet. */
  get needsNote(): boolean {
    return this.#stated < this.#synced;
  }

  /** Position at which the ring is full. */
  get limit(): number {
    const { segmentBytes, segments } = this.#geometry;
    const first = this.#ring.first ?? Math.floor(this.#position / segmentBytes);
    return (first + segments) * segmentBytes;
  }

  /** Bytes that can still be written before the ring is full. */
  get freeBytes(): number {
    return this.limit - this.#position;
  }

  /** Returns the position behind the records of a transaction that is written behind `end`. */
  endOf(operations: readonly StagedOperation[], end: number): number {
    const { segmentBytes } = this.#geometry;
    let position = end;
    for (const { idBytes, body } of operations) {
      const extent = recordExtent(idBytes, body.length);
      position = placeBehind(position, extent, segmentBytes) + extent;
    }
    return position;
  }

  /** Bytes of the ring. */
  get totalBytes(): number {
    return this.#geometry.segmentBytes * this.#geometry.segments;
  }

  /** Whether the current segment and the next one are ready. */
  get isNextReady(): boolean {
    const current = Math.floor(this.#position / this.#geometry.segmentBytes);
    return this.#ring.isReady(current) && this.#ring.isReady(current + 1);
  }

  /** Makes the segment in use and the next one ready, so that no transaction has to wait for them. */
  async prepareNext(): Promise<void> {
    const current = Math.floor(this.#position / this.#geometry.segmentBytes);
    for (const sequence of [current, current + 1]) {
      if (this.#ring.usedCount < this.#geometry.segments && !this.#ring.isReady(sequence))
        await this.#ring.prepare(sequence);
    }
  }

  /** Waits until no segment is being made. */
  whenPrepared(): Promise<void> {
    return this.#ring.whenIdle();
  }

  /**
   * Writes the records of transactions, one after the other, and syncs them. It sets the position of each operation. When it
   * returns, all are on the disk.
   * @param transactions the operations of each transaction; none is empty.
   * @param mayBlock whether this thread may stop until the records are synced. It does so if the last sync was quick.
   * @throws QueueError `no-space-on-disk` when no segment could be made; nothing was written then. `sync-failed` when a
   *   write or a sync has failed: the log may contain any part of the records, and cannot be used any more.
   */
  async append(transactions: readonly (readonly StagedOperation[])[], mayBlock = false): Promise<void> {
    assert(!this.#isBroken, 'a log that has failed is not written any more');
    const { chunks, end } = this.#encode(transactions);
    await this.#prepareFor(chunks);
    const before = this.#synced;
    try {
      for (const chunk of chunks) await this.#write(chunk);
      await this.#syncCurrent(mayBlock);
    } catch (cause) {
      this.#isBroken = true;
      throw new QueueError('sync-failed', `the log cannot be written: ${(cause as Error).message}`, {
        cause,
      });
    }
    this.#position = end;
    this.#synced = end;
    this.#stated = before;
  }

  /** Writes a record that states what is synced. It belongs to no transaction. @throws as `append` */
  async appendNote(): Promise<void> {
    const stated = this.#synced;
    const note = {
      operation: OPERATION.note,
      queue: 0,
      number: 0,
      id: '',
      idBytes: 0,
      body: NOTHING,
      position: 0,
    };
    await this.append([[note]], true);
    // Do not write another note for this note: a note contains no message.
    if (this.#stated === stated) this.#stated = this.#synced;
  }

  /** Makes and opens all segments of a batch before the first write, so that a failure here changes nothing. */
  async #prepareFor(chunks: readonly Chunk[]): Promise<void> {
    for (const { position } of chunks) {
      const sequence = Math.floor(position / this.#geometry.segmentBytes);
      if (position >= this.limit)
        throw new QueueError('no-space-on-disk', 'all segments of the log are in use');
      try {
        if (!this.#ring.isReady(sequence)) await this.#ring.prepare(sequence);
        if (!this.#open.has(sequence)) {
          const path = segmentPath(this.#geometry.directory, sequence);
          this.#open.set(sequence, this.#kernel.open(path, 'r+'));
        }
      } catch (cause) {
        throw new QueueError('no-space-on-disk', `no segment of the log: ${(cause as Error).message}`, {
          cause,
        });
      }
    }
  }

  /** Writes a chunk. When it begins a segment, the one before is synced and closed first. */
  async #write({ position, bytes }: Chunk): Promise<void> {
    const { segmentBytes } = this.#geometry;
    const sequence = Math.floor(position / segmentBytes);
    if (this.#current !== undefined && this.#current !== sequence) {
      await this.#syncCurrent();
      this.#close(this.#current);
    }
    this.#current = sequence;
    const fd = this.#open.get(sequence);
    assert(fd !== undefined, 'a segment is open before it is written to');
    writeWhole(this.#kernel, fd, bytes, position % segmentBytes);
  }

  /**
   * Syncs the current segment. A sync that may block this thread does so: this saves two thread switches. If the last sync was
   * slow, it does not block: a slow disk must delay only the commits, and not the other requests.
   */
  async #syncCurrent(mayBlock = false): Promise<void> {
    const fd = this.#open.get(this.#current ?? -1);
    if (fd === undefined) return;
    const startedMs = this.#kernel.monotonicMs();
    await this.#kernel.fdatasync(fd, mayBlock && this.#lastSyncMs < QUICK_SYNC_MS);
    this.#lastSyncMs = this.#kernel.monotonicMs() - startedMs;
  }

  #close(sequence: number): void {
    const fd = this.#open.get(sequence);
    this.#open.delete(sequence);
    if (fd !== undefined) this.#kernel.close(fd);
  }

  /**
   * Writes the records of transactions into the scratch buffer, or into a larger one, at their distance from the end of the log.
   * @returns the bytes for each segment, valid until the next call; the end of the last record.
   */
  #encode(transactions: readonly (readonly StagedOperation[])[]): { chunks: Chunk[]; end: number } {
    const { segmentBytes, key } = this.#geometry;
    const start = this.#position;
    let neededEnd = start;
    for (const operations of transactions) neededEnd = this.endOf(operations, neededEnd);
    const needed = neededEnd - start;
    const bytes = needed > this.#scratch.length ? Buffer.allocUnsafe(needed) : this.#scratch;
    const chunks: Chunk[] = [];
    let from = start;
    let end = start;
    let segmentEnd = (Math.floor(start / segmentBytes) + 1) * segmentBytes;
    const endSegment = () => {
      if (segmentEnd - end >= RECORD_HEADER_BYTES) end += this.#putPad(bytes, end - start, end, segmentEnd);
      if (end > from) chunks.push({ position: from, bytes: bytes.subarray(from - start, end - start) });
      from = segmentEnd;
      end = segmentEnd;
      segmentEnd += segmentBytes;
    };
    // One object for all records: a new one for each costs as much as its encoding.
    const record = this.#emptyRecord();
    for (const operations of transactions) {
      for (let at = 0; at < operations.length; at += 1) {
        const operation = operations[at] as StagedOperation;
        const extent = recordExtent(operation.idBytes, operation.body.length);
        assert(extent <= segmentBytes, 'a record fits into a segment');
        if (end + extent > segmentEnd) endSegment();
        operation.position = end;
        record.position = end;
        if (at === 0) record.transaction = end;
        record.isLast = at === operations.length - 1;
        record.operation = operation.operation;
        record.queue = operation.queue;
        record.number = operation.number;
        record.id = operation.id;
        record.body = operation.body;
        putRecord(bytes, end - start, record, operation.idBytes, key);
        end += extent;
      }
    }
    if (end > from) chunks.push({ position: from, bytes: bytes.subarray(from - start, end - start) });
    return { chunks, end };
  }

  #emptyRecord(): LogRecord {
    return {
      position: 0,
      synced: this.#synced,
      transaction: 0,
      queue: 0,
      number: 0,
      generation: this.#generation,
      operation: OPERATION.pad,
      isLast: true,
      id: '',
      body: NOTHING,
    };
  }

  /** Writes a record that fills a segment up to its end. @returns its extent */
  #putPad(bytes: Buffer, at: number, position: number, segmentEnd: number): number {
    const body = Buffer.alloc(segmentEnd - position - RECORD_HEADER_BYTES);
    const pad = { ...this.#emptyRecord(), position, transaction: position, body };
    return putRecord(bytes, at, pad, 0, this.#geometry.key);
  }

  /** Frees the segments that end at or before a position. No recovery may need them any more. */
  release(position: number): void {
    const first = Math.floor(position / this.#geometry.segmentBytes);
    this.#ring.release(Math.min(first, this.#current ?? Number.POSITIVE_INFINITY));
  }

  /** Closes the open segments. */
  close(): void {
    for (const sequence of [...this.#open.keys()]) this.#close(sequence);
  }
}

/** Returns where a record behind `end` begins. If it does not fit into the rest of the segment, it begins the next segment. */
function placeBehind(end: number, extent: number, segmentBytes: number): number {
  const used = end % segmentBytes;
  return used + extent > segmentBytes ? end + segmentBytes - used : end;
}
