import type { IndexImage } from '../index/image.js';
import { FIELD } from '../index/layout.js';
import type { DataMap } from '../platform/data-map.js';
import { Fifo } from '../platform/fifo.js';
import type { Kernel, Registration } from '../platform/kernel.js';
import { linux } from '../platform/linux.js';
import type { Range } from './batcher.js';
import {
  ANSWER_BYTES,
  ANSWER_READ_BYTES,
  type Answer,
  decodeAnswers,
  encodeConfirmAck,
  encodeRequest,
  fifoPaths,
  type SyncRequest,
} from './tokens.js';

/** How a sync ended. Only `synced` means that the bytes are on the disk. */
export type SyncResult = { state: 'synced' } | { state: 'failed'; errno: number } | { state: 'timed-out' };

export interface SyncPort {
  /**
   * Writes the ranges to the disk. One call at a time.
   * @param isLone nobody else of this process waits for a sync: the thread may stay awake for a moment to get the answer
   * sooner.
   */
  sync(ranges: readonly Range[], isLone?: boolean): Promise<SyncResult>;
  /** Nothing more to be synced for now: the helper need not wait for this worker. */
  flushAcks(): void;
  close(): void;
}

export interface ClientTimeouts {
  /** After so long without an answer, look whether the helper was replaced [0044]. */
  helperTimeoutMs: number;
  /** After so long, give up. */
  requestTimeoutMs: number;
}

/**
 * Confirmations of confirmations are written several at once: the next request says the same of the worker that sends
 * it, and each write into a FIFO wakes the helper.
 */
const MAX_PENDING_ACKS = 4;
/** A FIFO holds 64 KiB, which is 2,730 receipts. */
const MAX_UNREAD_RECEIPTS = 64;

/**
 * So long a lone caller's answer is awaited awake: a processor that has gone to sleep takes a third of a sync to wake up. On a
 * disk that is slower than this the thread does not stay awake.
 */
const BUSY_POLL_MS = 0.3;

/** Ids take 32 bits in a token; then they begin anew. */
const MAX_REQUEST_ID = 2 ** 32 - 1;

interface Pending {
  /** By id; each is one range. */
  requests: Map<number, SyncRequest>;
  errno: number;
  sentToHelper: number;
  sinceMs: number;
  /** Has the timer passed once since it was sent? */
  hasTimerPassed: boolean;
  resolve: (result: SyncResult) => void;
}

/**
 * The worker's side of the four FIFOs [0040-0044]. One request (of one or more ranges) is out at a time; what other
 * callers bring meanwhile is folded into the next by the lane above.
 *
 * The receipt only tells that the helper has the request, so it is read late, with the confirmation.
 */
export class SyncClient implements SyncPort {
  readonly #kernel: Kernel;
  readonly #slot: number;
  readonly #incarnation: number;
  readonly #image: IndexImage;
  readonly #timeouts: ClientTimeouts;
  readonly #request: Fifo;
  readonly #receipt: Fifo;
  readonly #confirm: Registration;
  /** The same FIFO, for reads that do not go through the event loop. */
  readonly #confirmFifo: Fifo;
  /** struct pollfd: i32 fd, i16 events, i16 revents. */
  readonly #pollFd = Buffer.alloc(8);
  /** Did the last answer come so soon that staying awake for it was worth it? */
  #isBusyPollWorthwhile = true;
  readonly #confirmAck: Fifo;
  /** The first bytes of a token whose end has not come yet. */
  #partialToken: Buffer = Buffer.alloc(0);
  /** Confirmations of confirmations that have not been written yet. */
  #pendingAcks: Buffer[] = [];
  #pending: Pending | undefined;
  #nextId = 1;
  /** One timer for all requests: making one for each costs as much as sending it. */
  readonly #timer: Registration;
  #unreadReceipts = 0;

  /** @param directory where the FIFOs are: the data file's directory. */
  constructor(
    directory: string,
    worker: { slot: number; incarnation: number },
    image: IndexImage,
    timeouts: ClientTimeouts,
    kernel: Kernel = linux,
  ) {
    this.#kernel = kernel;
    const paths = fifoPaths(directory);
    this.#slot = worker.slot;
    this.#incarnation = worker.incarnation;
    this.#image = image;
    this.#timeouts = timeouts;
    this.#request = new Fifo(paths.request, ANSWER_READ_BYTES, kernel);
    this.#confirmAck = new Fifo(paths.confirmAck, ANSWER_READ_BYTES, kernel);
    this.#receipt = new Fifo(paths.receipt(worker.slot), ANSWER_READ_BYTES, kernel);
    const confirm = new Fifo(paths.confirm(worker.slot), ANSWER_READ_BYTES, kernel);
    // Tokens for a predecessor that was killed while it waited.
    this.#receipt.drain();
    confirm.drain();
    this.#confirmFifo = confirm;
    const POLLIN = 1;
    this.#pollFd.writeInt32LE(confirm.fd, 0);
    this.#pollFd.writeInt16LE(POLLIN, 4);
    this.#confirm = kernel.onFifoData(confirm.fd, ANSWER_READ_BYTES, (bytes) => this.#onConfirm(bytes));
    this.#timer = kernel.every(timeouts.helperTimeoutMs, () => this.#checkTimeouts());
  }

  sync(ranges: readonly Range[], isLone = false): Promise<SyncResult> {
    return new Promise((resolve) => {
      const requests = new Map<number, SyncRequest>();
      for (const { offset, length } of ranges) {
        const id = this.#nextId;
        this.#nextId = (id % MAX_REQUEST_ID) + 1;
        requests.set(id, { slot: this.#slot, incarnation: this.#incarnation, id, offset, length });
      }
      this.#pending = {
        requests,
        errno: 0,
        sentToHelper: this.#image.get(FIELD.helperIncarnation),
        sinceMs: this.#kernel.monotonicMs(),
        resolve,
        hasTimerPassed: false,
      };
      this.#send(this.#pending);
      // Else it comes through the event loop.
      if (isLone && this.#isBusyPollWorthwhile && this.#kernel.busyPoll(this.#pollFd, 1, BUSY_POLL_MS) > 0)
        this.#onConfirm(this.#confirmFifo.read());
    });
  }

  #send(pending: Pending): void {
    if (this.#pendingAcks.length >= MAX_PENDING_ACKS) this.flushAcks();
    // Should the FIFO be full, the request is sent again when the time-out looks.
    this.#request.write(Buffer.concat([...pending.requests.values()].map(encodeRequest)));
  }

  #onConfirm(bytes: Buffer): void {
    const all = this.#partialToken.length > 0 ? Buffer.concat([this.#partialToken, bytes]) : bytes;
    const whole = all.length - (all.length % ANSWER_BYTES);
    this.#partialToken = Buffer.from(all.subarray(whole));
    const answers = decodeAnswers(all.subarray(0, whole), 'confirm');
    // Somebody else wrote into the FIFO. What follows his bytes is begun anew, else no token would fit any more.
    if (answers.length * ANSWER_BYTES < whole) this.#partialToken = Buffer.alloc(0);
    const mine = answers.filter((answer) => this.#accept(answer));
    if (mine.length === 0) return;
    // The receipts came before the confirmations; they are read before there are too many.
    this.#unreadReceipts += mine.length;
    if (this.#unreadReceipts >= MAX_UNREAD_RECEIPTS) this.#readReceipts();
    for (const { id, batch, helper, incarnation } of mine) {
      this.#pendingAcks.push(encodeConfirmAck({ slot: this.#slot, incarnation, id, batch, helper }));
    }
    const pending = this.#pending;
    if (!pending || pending.requests.size > 0) return;
    this.#finish(pending.errno === 0 ? { state: 'synced' } : { state: 'failed', errno: pending.errno });
  }

  /** A confirmation counts only for the request that it names; anybody else's is none. */
  #accept(answer: Answer): boolean {
    if (answer.incarnation !== this.#incarnation) return false;
    if (!this.#pending?.requests.delete(answer.id)) return false;
    if (answer.errno !== 0) this.#pending.errno = answer.errno;
    return true;
  }

  flushAcks(): void {
    if (this.#pendingAcks.length === 0) return;
    this.#confirmAck.write(Buffer.concat(this.#pendingAcks));
    this.#pendingAcks = [];
  }

  #finish(result: SyncResult): void {
    const pending = this.#pending;
    if (!pending) return;
    this.#pending = undefined;
    this.#isBusyPollWorthwhile = this.#kernel.monotonicMs() - pending.sinceMs < BUSY_POLL_MS;
    pending.resolve(result);
  }

  #readReceipts(): Answer[] {
    this.#unreadReceipts = 0;
    return decodeAnswers(this.#receipt.read(), 'receipt').filter(
      ({ incarnation }) => incarnation === this.#incarnation,
    );
  }

  /** No answer for a while: the helper may have been replaced, or the request lost with it. */
  #checkTimeouts(): void {
    const pending = this.#pending;
    if (!pending) return;
    if (this.#kernel.monotonicMs() - pending.sinceMs >= this.#timeouts.requestTimeoutMs) {
      this.#finish({ state: 'timed-out' });
      return;
    }
    // It may have been sent a moment ago.
    if (!pending.hasTimerPassed) {
      pending.hasTimerPassed = true;
      return;
    }
    const helper = this.#image.get(FIELD.helperIncarnation);
    const received = this.#readReceipts().some((receipt) => pending.requests.has(receipt.id));
    if (helper === pending.sentToHelper && received) return;
    pending.sentToHelper = helper;
    this.#send(pending);
  }

  close(): void {
    this.#timer.close();
    this.flushAcks();
    this.#finish({ state: 'timed-out' });
    this.#confirm.close();
    for (const fifo of [this.#request, this.#receipt, this.#confirmAck]) fifo.close();
  }
}

/** What DirectSync needs of a pair. */
export interface SyncablePair {
  data: DataMap;
  redirtyUnconfirmed(): void;
}

/** Syncs without a helper: the caller's thread does the msync itself. For the dead-letter queue, which is rarely written. */
export class DirectSync implements SyncPort {
  readonly #pair: SyncablePair;

  constructor(pair: SyncablePair) {
    this.#pair = pair;
  }

  sync(ranges: readonly Range[]): Promise<SyncResult> {
    for (const { offset, length } of ranges) {
      const errno = this.#pair.data.sync(offset, length);
      if (errno !== 0) {
        this.#pair.redirtyUnconfirmed();
        return Promise.resolve({ state: 'failed', errno });
      }
    }
    return Promise.resolve({ state: 'synced' });
  }

  flushAcks(): void {}

  close(): void {}
}
