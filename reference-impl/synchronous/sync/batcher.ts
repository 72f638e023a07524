import type { ConfirmAck, SyncRequest } from './tokens.js';

/**
 * Rules that decide which requests a batch takes and when it is written (patent [0045]; claims 5-13, 21-29,
 * 36-43, 48-55). `null` turns a rule off.
 */
export interface BatchRules {
  /**
   * Total length of the requests, in bytes, at which the batch is written (patent claims 6, 8, 22, 24, 38, 50).
   */
  maxBatchBytes: number;
  /** Number of requests at which the batch is written (patent claims 9, 25, 39, 51). */
  maxBatchRequests: number;
  /**
   * Longest time from the first request of a batch to its write, in milliseconds. 0: the requests of one read
   * are written at once (patent claims 10, 26, 36, 40, 48, 52).
   */
  maxGatherMs: number;
  /**
   * Time without a new request until the batch is written, in ms. 0: no such rule (patent claims 11, 27, 41,
   * 53).
   */
  maxIdleMs: number;
  /** Time since the previous write after which the batch is written, in milliseconds (patent claims 5, 21). */
  maxSinceWriteMs: number | null;
  /**
   * Number of requests without a gap between them at which the batch is written (patent claims 7, 23, 37, 49).
   */
  contiguousRequests: number | null;
  /**
   * Largest gap between a request and the batch, in pages of 4096 bytes. Beyond it the request is not
   * substantially contiguous (patent claims 12, 28, 42, 54).
   */
  maxGapPages: number | null;
  /**
   * Largest gap between a request and the batch, in bytes. Beyond it the request is not substantially
   * contiguous (patent claims 13, 29, 43, 55). If `maxGapPages` is set too, the smaller limit applies.
   */
  maxGapBytes: number | null;
  /** Whether a request that is not substantially contiguous causes the batch to be written. */
  writeOnMisfit: boolean;
  /**
   * Longest time, in milliseconds, that the helper waits until each worker has confirmed that the confirmations
   * of a batch arrived. After this time the helper clears the batch without them (patent [0044]).
   */
  confirmationTimeoutMs: number;
  /**
   * Upper bound of the batches that are written to the disk and not cleared. The helper has sent confirmations
   * for such a batch to the workers. The batch is cleared when each worker has confirmed that they arrived, or
   * when the time-out has passed. At this bound the helper gathers no requests until a batch is cleared. With 1
   * it waits after every batch, as the patent describes [0043]: there a worker might take a confirmation that
   * was meant for another worker. Here every token names its worker, so the helper can write further batches
   * during the wait.
   */
  maxUnconfirmedBatches: number;
}

/** A range of the data file, in bytes. */
export interface Range {
  offset: number;
  length: number;
}

const PAGE_BYTES = 4096;
/**
 * Largest gap, in bytes, between requests that one msync call writes together. Covering the gap costs
 * nothing, because msync writes only dirty pages.
 */
const MERGE_GAP_BYTES = 256 * 1024;

/**
 * A written batch, with the requests whose workers have not yet confirmed that they received the confirmation.
 */
interface UnconfirmedBatch {
  awaited: Map<string, SyncRequest>;
  writtenAtMs: number;
}

const keyOf = (request: { slot: number; incarnation: number; id: number }): string =>
  `${request.slot}/${request.incarnation}/${request.id}`;

/**
 * The batching of the sync helper as a state machine without clocks and files. The caller passes in each token
 * and the current time, and asks what to do. The numbers in parentheses are the steps in figures 4, 5 and 6 of the
 * patent.
 *
 *     gathering   requests are added to the batch, stored for the next batch, or skipped (505-560)
 *     confirming  the maximum number of batches is written and not cleared; the helper waits for the confirmations
 *                 of the confirmations (535-540)
 *
 * A written batch is cleared when all its confirmations are confirmed or its time-out has passed. The stored
 * requests then come first into the next batch (545-550).
 */
export class Batcher {
  readonly #rules: BatchRules;
  readonly #maxGapBytes: number;
  #batch: SyncRequest[] = [];
  #start = 0;
  #end = 0;
  #bytes = 0;
  #stored: SyncRequest[] = [];
  #misfit = false;
  #firstAtMs = 0;
  #lastAtMs = 0;
  #writtenAtMs: number;
  /** Batches that are written and not cleared, oldest first. */
  #unconfirmed: UnconfirmedBatch[] = [];

  /** @param nowMs the current time on the clock that all later calls use, in milliseconds */
  constructor(rules: BatchRules, nowMs: number) {
    this.#rules = rules;
    const pages = rules.maxGapPages === null ? Number.POSITIVE_INFINITY : rules.maxGapPages * PAGE_BYTES;
    this.#maxGapBytes = Math.min(pages, rules.maxGapBytes ?? Number.POSITIVE_INFINITY);
    this.#writtenAtMs = nowMs;
  }

  /** Phase of the state machine: gathering requests, or waiting for confirmations of confirmations. */
  get phase(): 'gathering' | 'confirming' {
    return this.#unconfirmed.length < this.#rules.maxUnconfirmedBatches ? 'gathering' : 'confirming';
  }

  /** The number of requests that are stored for the next batch. */
  get storedCount(): number {
    return this.#stored.length;
  }

  /**
   * Takes a request that has arrived (patent, step 505). `added`: it is in the batch. `stored`: it waits for
   * the next batch. `skipped`: a copy of it is in one of the two.
   */
  receive(request: SyncRequest, nowMs: number): 'added' | 'stored' | 'skipped' {
    const key = keyOf(request);
    for (const { awaited } of this.#unconfirmed) {
      for (const [other, { slot, incarnation, id }] of awaited) {
        // A worker sends a new request only after it has read the confirmation of the last one, so the new
        // request confirms that confirmation. A worker that repeats a request has not read the confirmation
        // and gets another.
        const passed = slot === request.slot && (incarnation !== request.incarnation || id < request.id);
        if (passed || other === key) awaited.delete(other);
      }
    }
    const isSame = (other: SyncRequest): boolean => keyOf(other) === key;
    if (this.#batch.some(isSame) || this.#stored.some(isSame)) return 'skipped';
    const gathering = this.phase === 'gathering';
    if (!gathering || !this.#fits(request)) {
      if (gathering) this.#misfit = true;
      this.#stored.push(request);
      return 'stored';
    }
    this.#add(request, nowMs);
    return 'added';
  }

  #fits(request: SyncRequest): boolean {
    if (this.#batch.length === 0) return true;
    const gap = Math.max(request.offset - this.#end, this.#start - (request.offset + request.length), 0);
    return gap <= this.#maxGapBytes;
  }

  #add(request: SyncRequest, nowMs: number): void {
    const end = request.offset + request.length;
    if (this.#batch.length === 0) {
      this.#firstAtMs = nowMs;
      this.#start = request.offset;
      this.#end = end;
    }
    this.#batch.push(request);
    this.#start = Math.min(this.#start, request.offset);
    this.#end = Math.max(this.#end, end);
    this.#bytes += request.length;
    this.#lastAtMs = nowMs;
  }

  /** Returns whether the batch must be written now (patent, steps 520 and 630). */
  isDue(nowMs: number): boolean {
    if (this.phase === 'confirming' || this.#batch.length === 0) return false;
    const rules = this.#rules;
    return (
      nowMs - this.#firstAtMs >= rules.maxGatherMs ||
      this.#bytes >= rules.maxBatchBytes ||
      this.#batch.length >= rules.maxBatchRequests ||
      (rules.maxIdleMs > 0 && nowMs - this.#lastAtMs >= rules.maxIdleMs) ||
      (rules.maxSinceWriteMs !== null && nowMs - this.#writtenAtMs >= rules.maxSinceWriteMs) ||
      (rules.writeOnMisfit && this.#misfit) ||
      (rules.contiguousRequests !== null && this.#maxContiguousRequests() >= rules.contiguousRequests)
    );
  }

  /** Returns the length of the longest run of requests without a gap between them. */
  #maxContiguousRequests(): number {
    const sorted = [...this.#batch].sort((a, b) => a.offset - b.offset);
    let longest = 0;
    let run = 0;
    let end = -1;
    for (const request of sorted) {
      run = request.offset === end ? run + 1 : 1;
      longest = Math.max(longest, run);
      end = request.offset + request.length;
    }
    return longest;
  }

  /** Returns the ranges to write, sorted by offset (patent [0012]). They cover every byte of every request. */
  ranges(): Range[] {
    const merged: Range[] = [];
    for (const { offset, length } of [...this.#batch].sort((a, b) => a.offset - b.offset)) {
      const last = merged.at(-1);
      if (last && offset - (last.offset + last.length) <= MERGE_GAP_BYTES) {
        last.length = Math.max(last.length, offset + length - last.offset);
      } else {
        merged.push({ offset, length });
      }
    }
    return merged;
  }

  /** Returns the requests of the batch, in order of arrival. */
  requests(): readonly SyncRequest[] {
    return this.#batch;
  }

  /**
   * Records that the batch was written, or that its write failed, and starts the next batch (patent, step 535).
   *
   * @param reached the requests whose confirmations were sent
   */
  written(reached: readonly SyncRequest[], nowMs: number): void {
    this.#writtenAtMs = nowMs;
    this.#unconfirmed.push({
      awaited: new Map(reached.map((request) => [keyOf(request), request])),
      writtenAtMs: nowMs,
    });
    this.#batch = [];
    this.#bytes = 0;
    this.#misfit = false;
    this.#takeStored(nowMs);
  }

  /**
   * Takes a confirmation of a confirmation: a worker has received the confirmation that the helper sent
   * (patent, step 540). A token that no batch awaits has no effect.
   */
  confirmed(token: ConfirmAck): void {
    for (const { awaited } of this.#unconfirmed) awaited.delete(keyOf(token));
  }

  /**
   * Clears the written batches for which all workers have confirmed that the confirmation arrived, and those
   * whose time-out has passed (patent, step 545).
   *
   * @returns the requests whose workers did not confirm in time, because they are dead or stopped
   */
  clearConfirmed(nowMs: number): SyncRequest[] {
    const silent: SyncRequest[] = [];
    this.#unconfirmed = this.#unconfirmed.filter(({ awaited, writtenAtMs }) => {
      const timedOut = nowMs - writtenAtMs >= this.#rules.confirmationTimeoutMs;
      if (timedOut) silent.push(...awaited.values());
      return awaited.size > 0 && !timedOut;
    });
    this.#takeStored(nowMs);
    return silent;
  }

  /**
   * Moves the requests that were stored for the next batch into the batch, if it is empty, in order of arrival
   * (patent, step 550).
   */
  #takeStored(nowMs: number): void {
    if (this.#batch.length > 0 || this.#stored.length === 0 || this.phase === 'confirming') return;
    const stored = this.#stored;
    this.#stored = [];
    for (const request of stored) {
      if (this.#fits(request)) this.#add(request, nowMs);
      else {
        this.#misfit = true;
        this.#stored.push(request);
      }
    }
  }

  /** Returns the milliseconds until time alone changes the state; undefined when only a token can. */
  waitMs(nowMs: number): number | undefined {
    const [oldest] = this.#unconfirmed;
    if (this.phase === 'confirming' && oldest) {
      // Such a batch can be cleared at once: new requests have confirmed it, or no worker could be reached.
      if (this.#unconfirmed.some(({ awaited }) => awaited.size === 0)) return 0;
      return Math.max(0, oldest.writtenAtMs + this.#rules.confirmationTimeoutMs - nowMs);
    }
    if (this.#batch.length === 0) return undefined;
    const { maxGatherMs, maxIdleMs, maxSinceWriteMs } = this.#rules;
    const times = [this.#firstAtMs + maxGatherMs];
    if (maxIdleMs > 0) times.push(this.#lastAtMs + maxIdleMs);
    if (maxSinceWriteMs !== null) times.push(this.#writtenAtMs + maxSinceWriteMs);
    return Math.max(0, Math.min(...times) - nowMs);
  }
}
