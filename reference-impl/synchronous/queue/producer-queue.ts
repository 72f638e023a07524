import { ENTRY, FIELD, NONE, STATUS } from '../index/layout.js';
import { append, release } from '../index/lists.js';
import { assert, isMutexHeld } from '../platform/errors.js';
import type { Body } from '../record/body.js';
import { TYPE_BYTE } from '../record/codec.js';
import { extentOf } from '../record/layout.js';
import { eraseRecord, recordBytes, writeRecord } from '../record/record.js';
import { findFit, findSpace } from '../ring/reserve.js';
import type { Range } from '../sync/batcher.js';
import type { SyncPort, SyncResult } from '../sync/client.js';
import type { Pair } from './pair.js';
import type { EnqueueOutcome } from './types.js';

/** One caller's bodies: stored all or none. */
interface Job {
  bodies: readonly Body[];
  sizes: readonly number[];
  extentBytes: number;
  resolve: (outcome: EnqueueOutcome) => void;
  /** Set when space and entries are reserved. */
  slots: { entry: number; offset: number; number: number }[];
}

/** Microtasks that lie between an answer and the next call of a caller that does nothing else in between. */
const CALLER_MICROTASKS = 8;

/** So long rounds may follow each other without a turn of the event loop: sockets and timers wait meanwhile. */
const MAX_TURN_MS = 5;

/** Bytes and ranges of one sync request at most: bounds the time that the mutex is held and the size of the tokens. */
const MAX_ROUND_BYTES = 8 * 2 ** 20;
const MAX_ROUND_RANGES = 64;

/**
 * The way of messages into one data file [0028]. One round at a time: reserve a contiguous run for everything that
 * waits, copy, sync through the helper, confirm. What comes during a round is folded into the next.
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

  /** @param lock the worker's lock word (entry-lock.ts). */
  constructor(pair: Pair, lock: number, sync: SyncPort, onReady: () => void) {
    this.#pair = pair;
    this.#lock = lock;
    this.#sync = sync;
    this.#onReady = onReady;
  }

  enqueue(bodies: readonly Body[]): Promise<EnqueueOutcome> {
    return new Promise((resolve) => {
      const sizes = bodies.map(recordBytes);
      const largest = Math.max(...sizes);
      if (largest > this.#pair.maxRecordBytes) {
        const detail = `a record of ${largest} bytes, expected at most ${this.#pair.maxRecordBytes}`;
        resolve({ outcome: 'rejected', reason: 'too-large', detail });
        return;
      }
      const extentBytes = sizes.reduce((sum, size) => sum + extentOf(size), 0);
      this.#waiting.push({ bodies, sizes, extentBytes, resolve, slots: [] });
      if (this.#busy) return;
      this.#busy = true;
      // After the microtasks and the sockets of this turn: all that they bring shares one round.
      this.#pair.kernel.defer(() => this.#runRounds());
    });
  }

  async #runRounds(): Promise<void> {
    let lastYieldMs = this.#pair.kernel.monotonicMs();
    while (this.#waiting.length > 0) {
      await this.#runRound(this.#takeJobs());
      // The callers just answered get their turn first: their next messages join the next round.
      for (let hop = 0; hop < CALLER_MICROTASKS; hop += 1) await undefined;
      const nowMs = this.#pair.kernel.monotonicMs();
      // Only the answers of a lone caller come without a turn.
      const turnDue = this.#lastJobCount === 1 && nowMs - lastYieldMs >= MAX_TURN_MS;
      if (this.#waiting.length > 0 && !turnDue) continue;
      await new Promise<void>((resolve) => this.#pair.kernel.defer(resolve));
      lastYieldMs = nowMs;
    }
    this.#sync.flushAcks();
    this.#busy = false;
    this.#onIdle?.();
  }

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

  /** One caller, and it was alone before: what comes during a round that is not lone is many callers' and takes its time. */
  #isLone(jobCount: number): boolean {
    const lone = jobCount === 1 && this.#lastJobCount === 1;
    this.#lastJobCount = jobCount;
    return lone && this.#waiting.length === 0;
  }

  /** Without the mutex nothing can be stored: everybody is told so, and may come again. */
  #reserveOrReject(jobs: Job[]): { reserved: Job[]; ranges: Range[] } {
    try {
      return this.#reserve(jobs);
    } catch (error) {
      if (!isMutexHeld(error)) throw error;
      for (const job of jobs) job.resolve(rejection('mutex-held', error.message));
      return { reserved: [], ranges: [] };
    }
  }

  /** Index entry and space for each job [0029-0034]; a job that finds none is rejected. */
  #reserve(jobs: Job[]): { reserved: Job[]; ranges: Range[] } {
    const reserved: Job[] = [];
    const postponed: Job[] = [];
    const rejected: [Job, EnqueueOutcome][] = [];
    const ranges: Range[] = [];
    this.#pair.withMutex(() => {
      const { image, ring } = this.#pair;
      const total = jobs.reduce((sum, job) => sum + job.extentBytes, 0);
      // One run for all if there is room as it stands; old messages are skipped only for those that need it.
      let at = findFit(image, ring, total);
      for (const job of jobs) {
        const free = image.geometry.entries - image.get(FIELD.inUse);
        if (free < job.bodies.length) {
          rejected.push([
            job,
            rejection('no-entry', `all ${image.geometry.entries} index entries are in use`),
          ]);
          continue;
        }
        const offset = at ?? findSpace(image, ring, job.extentBytes);
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

  /** On the disk: ready for whoever takes it first, and confirmed. Status before lock: nobody ever sees it half. */
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

  /** The sync failed or was given up. The messages are taken out; whether the disk has them, nobody knows. */
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

  /** Resolves when every message handed over so far has its answer. */
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

const rejection = (reason: 'no-space' | 'no-entry' | 'mutex-held', detail: string): EnqueueOutcome => ({
  outcome: 'rejected',
  reason,
  detail,
});

/** Adds a run to the ranges to be synced; false when there are too many of them for one request. */
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
