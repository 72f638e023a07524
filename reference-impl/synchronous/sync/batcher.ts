import type { ConfirmAck, SyncRequest } from './tokens.js';

/** The knobs of [0045] and of claims 5-13, 21-29, 36-43; `null` means that there is no such rule. */
export interface BatchRules {
  /** Write when the batch holds so many bytes (claims 6, 8, 38). */
  maxBatchBytes: number;
  /** Write when it holds so many requests (claims 9, 39). */
  maxBatchRequests: number;
  /** Write so long after the first request; 0: what one read gathered is written at once (claims 10, 36, 40). */
  maxGatherMs: number;
  /** Write when no request came for so long; 0: no such rule (claims 11, 41). */
  maxIdleMs: number;
  /** Write when the previous write was so long ago (claim 5). */
  maxSinceWriteMs: number | null;
  /** Write when so many requests lie end to end (claims 7, 37). */
  contiguousRequests: number | null;
  /** A request further away than this is not substantially contiguous (claims 12, 13, 42, 43). */
  maxGapPages: number | null;
  maxGapBytes: number | null;
  /** Does a request that is not substantially contiguous make the batch be written? */
  writeOnMisfit: boolean;
  /** How long to wait for the confirmations of the confirmations [0044]. */
  confirmationTimeoutMs: number;
  /**
   * Written batches whose confirmations may still be unconfirmed while the next is gathered. 1: the helper waits for all
   * of them before it goes on, as in [0043]. The patent waits because a worker might take a confirmation that
   * was meant for another; here every token names its owner, so the disk need not stand still meanwhile.
   */
  maxUnconfirmedBatches: number;
}

export interface Range {
  offset: number;
  length: number;
}

const PAGE_BYTES = 4096;
/** Requests closer than this are written by one msync; only dirty pages are written anyway. */
const MERGE_GAP_BYTES = 256 * 1024;

/** A written batch: the requests whose workers have not yet confirmed their confirmation. */
interface UnconfirmedBatch {
  awaited: Map<string, SyncRequest>;
  writtenAtMs: number;
}

const keyOf = (request: { slot: number; incarnation: number; id: number }): string =>
  `${request.slot}/${request.incarnation}/${request.id}`;

/**
 * The sync helper's batching, Fig. 4, 5 and 6, as a state machine without clocks or files: it is told what came and
 * what time it is, and says what to do.
 *
 *     gathering   requests are added to the batch, stored for the next one, or skipped (505-560)
 *     confirming  as many batches as may be are written and not confirmed; waits for the confirmations of the
 *                 confirmations (535-540)
 *
 * A written batch is cleared when every confirmation of it is confirmed or the time is up; the stored requests are then
 * taken first (545-550).
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
  /** Batches that are written and whose confirmations are not all confirmed, oldest first. */
  #unconfirmed: UnconfirmedBatch[] = [];

  constructor(rules: BatchRules, nowMs: number) {
    this.#rules = rules;
    const pages = rules.maxGapPages === null ? Number.POSITIVE_INFINITY : rules.maxGapPages * PAGE_BYTES;
    this.#maxGapBytes = Math.min(pages, rules.maxGapBytes ?? Number.POSITIVE_INFINITY);
    this.#writtenAtMs = nowMs;
  }

  get phase(): 'gathering' | 'confirming' {
    return this.#unconfirmed.length < this.#rules.maxUnconfirmedBatches ? 'gathering' : 'confirming';
  }

  get storedCount(): number {
    return this.#stored.length;
  }

  /** A request came (505). Skipped: it is in the batch or in the store already; the worker asked twice. */
  receive(request: SyncRequest, nowMs: number): 'added' | 'stored' | 'skipped' {
    const key = keyOf(request);
    for (const { awaited } of this.#unconfirmed) {
      for (const [other, { slot, incarnation, id }] of awaited) {
        // A worker asks anew only after it has seen its confirmation: that confirms it as well. And one that asks for
        // the same again has not seen it: it gets another.
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

  /** Is the batch to be written now (520, 630)? */
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

  /** Most requests of the batch that lie end to end. */
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

  /** The batch, sorted [0012], as ranges to be written; every byte of every request is in one of them. */
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

  /** The requests of the batch, in order of arrival. */
  requests(): readonly SyncRequest[] {
    return this.#batch;
  }

  /** The batch was written (or failed to be), and a confirmation is on its way to each of `reached` (535). */
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

  /** A confirmation of a confirmation came (540); one that nobody waits for is no matter. */
  confirmed(token: ConfirmAck): void {
    for (const { awaited } of this.#unconfirmed) awaited.delete(keyOf(token));
  }

  /**
   * Clears the written batches whose confirmations are all confirmed, or whose time is up (545).
   *
   * @returns the requests whose workers did not confirm in time: dead, or stopped.
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

  /** The requests of the temporary storage go first into an empty batch, in the order in which they came (550). */
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

  /** Milliseconds until time alone changes something; undefined when only a message can. */
  waitMs(nowMs: number): number | undefined {
    const [oldest] = this.#unconfirmed;
    if (this.phase === 'confirming' && oldest) {
      // A request may have confirmed the last one, and what reached nobody is confirmed by nobody.
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
