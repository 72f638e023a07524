import { assert, isMutexHeld } from '../../common/platform/errors.js';
import { ENTRY, FIELD, NONE, STATUS } from '../index/layout.js';
import { append, release } from '../index/lists.js';
import type { Body } from '../record/body.js';
import { TYPE_BYTE } from '../record/codec.js';
import { extentOf } from '../record/layout.js';
import { eraseRecord, recordBytes, writeRecord } from '../record/record.js';
import { findFit, findSpace, type Ring } from '../ring/reserve.js';
import type { Range } from '../sync/batcher.js';
import type { SyncPort, SyncResult } from '../sync/client.js';
import type { Pair } from './pair.js';
import type { EnqueueOutcome } from './types.js';

/** Bodies of one `enqueue` call. Either all are stored or none. */
interface Job {
  bodies: readonly Body[];
  /** Size of each record in bytes, checksums included. */
  sizes: readonly number[];
  /**
   * Bytes that the records of these bodies take in the data file together. Each record is rounded up to a
   * multiple of 256 bytes, because it starts on a slot boundary.
   */
  extentBytes: number;
  /** Whether the job leaves the reserve of the pair free. */
  leavesReserve: boolean;
  resolve: (outcome: EnqueueOutcome) => void;
  /** Reserved entry and space of each body. The list is empty until entries and space are reserved. */
  slots: { entry: number; offset: number; number: number }[];
}

/** Number of microtasks between an answer and the next call of a caller that does nothing else in between. */
const CALLER_MICROTASKS = 8;

/**
 * Longest time, in milliseconds, that rounds follow each other without a turn of the event loop. Sockets and
 * timers wait during this time.
 */
const MAX_TURN_MS = 5;

/**
 * Largest size of one round. It bounds the time for which the mutex is held. A larger single job gets a
 * separate round.
 */
const MAX_ROUND_BYTES = 8 * 2 ** 20;
/** Largest number of ranges in one sync request. It bounds the size of the tokens. */
const MAX_ROUND_RANGES = 64;

/**
 * The queue of messages that a worker stores in one data file (patent [0028]). It runs one round at a time:
 * reserve a contiguous run for all waiting messages, copy them, sync them through the helper, confirm them.
 * Messages that arrive during a round share the next one.
 */
export class ProducerQueue {
  readonly #pair: Pair;
  readonly #lock: number;
  readonly #sync: SyncPort;
  readonly #onReady: () => void;
  #waiting: Job[] = [];
  #busy = false;
  #lastJobCount = 0;
  #onIdle: (() => void) | undefined;

  /**
   * @param lock the value by which the worker locks index entries (entry-lock.ts).
   * @param onReady called after each round that made messages ready for delivery.
   */
  constructor(pair: Pair, lock: number, sync: SyncPort, onReady: () => void) {
    this.#pair = pair;
    this.#lock = lock;
    this.#sync = sync;
    this.#onReady = onReady;
  }

  /** Stores all bodies or none, in one of the next rounds; see `Queue.enqueue`. */
  enqueue(bodies: readonly Body[], leavesReserve = false): Promise<EnqueueOutcome> {
    return new Promise((resolve) => {
      const sizes = bodies.map(recordBytes);
      const largest = Math.max(...sizes);
      if (largest > this.#pair.maxRecordBytes) {
        const detail = `a record of ${largest} bytes, expected at most ${this.#pair.maxRecordBytes}`;
        resolve({ outcome: 'rejected', reason: 'too-large', detail });
        return;
      }
      const extentBytes = sizes.reduce((sum, size) => sum + extentOf(size), 0);
      this.#waiting.push({ bodies, sizes, extentBytes, leavesReserve, resolve, slots: [] });
      if (this.#busy) return;
      this.#busy = true;
      // Start after the microtasks and the sockets of this turn, so that all messages that they bring share
      // one round.
      this.#pair.kernel.defer(() => this.#runRounds());
    });
  }

  async #runRounds(): Promise<void> {
    let lastYieldMs = this.#pair.kernel.monotonicMs();
    while (this.#waiting.length > 0) {
      await this.#runRound(this.#takeJobs());
      // Let the callers that were just answered run first, so that their next messages join the next round.
      for (let hop = 0; hop < CALLER_MICROTASKS; hop += 1) await undefined;
      const nowMs = this.#pair.kernel.monotonicMs();
      // Only the answer to a lone caller comes without a turn of the event loop, so only these rounds need
      // one added.
      const turnDue = this.#lastJobCount === 1 && nowMs - lastYieldMs >= MAX_TURN_MS;
      if (this.#waiting.length > 0 && !turnDue) continue;
      await new Promise<void>((resolve) => this.#pair.kernel.defer(resolve));
      lastYieldMs = nowMs;
    }
    this.#sync.flushAcks();
    this.#busy = false;
    this.#onIdle?.();
  }

  /** Removes the jobs of the next round from the waiting ones. */
  #takeJobs(): Job[] {
    let bytes = 0;
    let count = 0;
    for (const job of this.#waiting) {
      if (count > 0 && bytes + job.extentBytes > MAX_ROUND_BYTES) break;
      bytes += job.extentBytes;
      count += 1;
    }
    return this.#waiting.splice(0, count);
  }

  async #runRound(jobs: Job[]): Promise<void> {
    const { reserved, ranges } = this.#reserveOrReject(jobs);
    if (reserved.length === 0) return;
    const dateMs = this.#pair.kernel.wallClockMs();
    for (const job of reserved) this.#writeRecords(job, dateMs);
    const result = await this.#sync.sync(ranges, this.#isLone(reserved.length));
    if (result.state === 'synced') this.#publish(reserved);
    else this.#withdraw(reserved, result);
  }

  /**
   * Returns whether a single caller uses the queue: this round and the previous one have one job, and no job
   * waits. Only then is polling for the answer worthwhile. With several callers the event loop has other work
   * meanwhile.
   */
  #isLone(jobCount: number): boolean {
    const lone = jobCount === 1 && this.#lastJobCount === 1;
    this.#lastJobCount = jobCount;
    return lone && this.#waiting.length === 0;
  }

  /**
   * Reserves entries and space. If another process holds the mutex for too long, it rejects all jobs; callers
   * may retry.
   */
  #reserveOrReject(jobs: Job[]): { reserved: Job[]; ranges: Range[] } {
    try {
      return this.#reserve(jobs);
    } catch (error) {
      if (!isMutexHeld(error)) throw error;
      for (const job of jobs) job.resolve(rejection('mutex-held', error.message));
      return { reserved: [], ranges: [] };
    }
  }

  /**
   * Reserves index entries and space for each job (patent [0029-0034]). It rejects a job for which the pair has
   * no free entries or space, and postpones a job that would need one more range than a request can have.
   */
  #reserve(jobs: Job[]): { reserved: Job[]; ranges: Range[] } {
    const reserved: Job[] = [];
    const postponed: Job[] = [];
    const rejected: [Job, EnqueueOutcome][] = [];
    const ranges: Range[] = [];
    this.#pair.withMutex(() => {
      const { image, ring } = this.#pair;
      const total = jobs.reduce((sum, job) => sum + job.extentBytes, 0);
      // Try one run for all jobs in the space that is free now. Skip old messages only for a job that needs
      // it.
      let at = findFit(image, ring, total);
      for (const job of jobs) {
        const reserve = job.leavesReserve ? reserveOf(image.geometry.entries, ring) : NO_RESERVE;
        const free = image.geometry.entries - image.get(FIELD.inUse);
        if (free - reserve.entries < job.bodies.length) {
          rejected.push([
            job,
            rejection('no-entry', `all ${image.geometry.entries} index entries are in use`),
          ]);
          continue;
        }
        const freeBytes = ring.end - ring.start - image.getWide(FIELD.usedBytes) - reserve.bytes;
        const hasRoom = reserve.bytes === 0 || freeBytes >= job.extentBytes;
        const offset = hasRoom ? (at ?? findSpace(image, ring, job.extentBytes)) : undefined;
        if (offset === undefined) {
          rejected.push([
            job,
            rejection('no-space', `no ${job.extentBytes} bytes free in the queue data file`),
          ]);
          continue;
        }
        if (!addRange(ranges, offset, job.extentBytes)) {
          postponed.push(job);
          continue;
        }
        this.#appendEntries(job, offset);
        reserved.push(job);
        if (at !== undefined) at += job.extentBytes;
      }
    });
    this.#waiting.unshift(...postponed);
    for (const [job, outcome] of rejected) job.resolve(outcome);
    return { reserved, ranges };
  }

  #appendEntries(job: Job, start: number): void {
    const { image } = this.#pair;
    let offset = start;
    job.bodies.forEach((body, index) => {
      const sizeBytes = job.sizes[index] as number;
      const number = image.getWide(FIELD.nextNumber);
      const entry = append(image, { offset, number, sizeBytes, type: TYPE_BYTE[body.type] }, this.#lock);
      assert(entry !== NONE, 'there are as many free entries as the counts say');
      job.slots.push({ entry, offset, number });
      offset += extentOf(sizeBytes);
    });
  }

  #writeRecords(job: Job, dateMs: number): void {
    const { data, key, image } = this.#pair;
    job.bodies.forEach((body, index) => {
      const { entry, offset, number } = job.slots[index] as Job['slots'][number];
      const sum = writeRecord(data, key, offset, job.sizes[index] as number, { number, dateMs, body });
      image.put(image.entryWord(entry) + ENTRY.checksum, sum | 0);
    });
  }

  /**
   * Makes synced messages ready for delivery, and confirms them. The status is set before the lock is
   * cleared. In the other order, a worker killed in between would leave a reserved entry without an owner,
   * which no process delivers or frees.
   */
  #publish(jobs: Job[]): void {
    const { image } = this.#pair;
    let count = 0;
    for (const { slots } of jobs) {
      for (const { entry } of slots) {
        const at = image.entryWord(entry);
        image.put(at + ENTRY.status, STATUS.ready);
        image.put(at + ENTRY.lock, 0);
        count += 1;
      }
    }
    image.add(FIELD.arrivals, count);
    for (const { slots, resolve } of jobs) {
      resolve({ outcome: 'confirmed', numbers: slots.map(({ number }) => BigInt(number)) });
    }
    this.#onReady();
  }

  /**
   * Removes messages from the queue after a sync that failed or timed out. They may or may not be on the
   * disk, so their outcome is indefinite.
   */
  #withdraw(jobs: Job[], result: SyncResult): void {
    const { image, data } = this.#pair;
    this.#pair.withMutexEventually(() => {
      for (const { slots } of jobs) {
        for (const { entry, offset } of slots) {
          eraseRecord(data, offset);
          release(image, entry);
        }
      }
    });
    const detail =
      result.state === 'failed'
        ? `msync failed with errno ${result.errno}`
        : 'the sync helper did not answer in time';
    for (const { resolve } of jobs) resolve({ outcome: 'indefinite', detail });
  }

  /** Resolves when every `enqueue` call so far has its outcome. */
  whenIdle(): Promise<void> {
    if (!this.#busy) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onIdle = resolve;
    });
  }

  close(): void {
    this.#sync.close();
  }
}

const NO_RESERVE = { entries: 0, bytes: 0 };

/**
 * Part of the entries and of the bytes that new mail leaves free. Mail that replaces other mail needs it: when
 * the queue is full, a notice or the rest of a message must still fit before the original can go.
 */
const RESERVE_SHARE = 1 / 16;

const reserveOf = (entries: number, { start, end }: Ring) => ({
  entries: Math.floor(entries * RESERVE_SHARE),
  bytes: Math.floor((end - start) * RESERVE_SHARE),
});

const rejection = (reason: 'no-space' | 'no-entry' | 'mutex-held', detail: string): EnqueueOutcome => ({
  outcome: 'rejected',
  reason,
  detail,
});

/**
 * Adds a run to the ranges of a sync request. Returns false if the request already has the largest number of
 * ranges.
 */
function addRange(ranges: Range[], offset: number, length: number): boolean {
  const last = ranges.at(-1);
  if (last && last.offset + last.length === offset) {
    last.length += length;
    return true;
  }
  if (ranges.length === MAX_ROUND_RANGES) return false;
  ranges.push({ offset, length });
  return true;
}
