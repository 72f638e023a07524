import type { DataMap } from '../../common/platform/data-map.js';
import { Fifo } from '../../common/platform/fifo.js';
import type { Kernel, Registration } from '../../common/platform/kernel.js';
import { linux } from '../../common/platform/linux.js';
import type { LockFile } from '../../common/platform/locks.js';
import type { IndexImage } from '../index/image.js';
import { FIELD } from '../index/layout.js';
import { LOCK } from '../index/lock-bytes.js';
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

/** The outcome of a sync. Only `synced` means that the bytes are on the disk. */
export type SyncResult = { state: 'synced' } | { state: 'failed'; errno: number } | { state: 'timed-out' };

/** The way in which a worker syncs ranges of a data file. */
export interface SyncPort {
  /**
   * Writes the ranges to the disk. The caller makes one call at a time.
   * @param isLone true when no other caller in this process waits for a sync. The thread may then poll for
   * the answer for a moment, which gets the answer sooner.
   */
  sync(ranges: readonly Range[], isLone?: boolean): Promise<SyncResult>;
  /**
   * Sends the pending confirmations of confirmations, so that the helper does not wait for an idle worker.
   */
  flushAcks(): void;
  close(): void;
}

/** Time-outs of a sync client, in milliseconds. */
export interface ClientTimeouts {
  /** Time without an answer after which the client checks whether the helper was replaced (patent [0044]). */
  helperTimeoutMs: number;
  /** Time without an answer after which the client gives the request up. */
  requestTimeoutMs: number;
}

/**
 * Number of confirmations of confirmations that are written together. Each write into a FIFO wakes the
 * helper, and the next request of this worker confirms the previous confirmation anyway.
 */
const MAX_PENDING_ACKS = 4;
/** Number of receipts that may stay unread. A FIFO holds 64 KiB, which is 2,730 receipts. */
const MAX_UNREAD_RECEIPTS = 64;

/**
 * Longest time, in milliseconds, that the thread polls for the answer to a lone caller. A sleeping processor
 * takes a third of the time of a sync to wake up. If the last answer took longer than this, the disk is slow
 * and the thread does not poll.
 */
const BUSY_POLL_MS = 0.3;

/** Largest request id. An id has 32 bits in a token; after the largest id the count starts again at 1. */
const MAX_REQUEST_ID = 2 ** 32 - 1;

interface Pending {
  /** Requests that are not confirmed, by id; each is one range. */
  requests: Map<number, SyncRequest>;
  errno: number;
  /** Incarnation of the helper to which the requests were last sent. */
  sentToHelper: number;
  sinceMs: number;
  /** Whether the timer has fired since the requests were sent. */
  hasTimerPassed: boolean;
  resolve: (result: SyncResult) => void;
}

/**
 * The worker's side of the four FIFOs (patent [0040-0044]). One sync of one or more ranges is in flight at a
 * time. The producer queue above it combines the messages that arrive during a sync into the next sync.
 *
 * A receipt only reports that the helper has the request, so receipts are read later than the confirmations.
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
  /** The confirmation FIFO, for reads outside the event loop. */
  readonly #confirmFifo: Fifo;
  /** struct pollfd: i32 fd, i16 events, i16 revents. */
  readonly #pollFd = Buffer.alloc(8);
  /** Whether the last answer came within BUSY_POLL_MS. */
  #isBusyPollWorthwhile = true;
  readonly #confirmAck: Fifo;
  /** The first bytes of a token that has not arrived completely. */
  #partialToken: Buffer = Buffer.alloc(0);
  /** Confirmations of confirmations that are not written yet. */
  #pendingAcks: Buffer[] = [];
  #pending: Pending | undefined;
  #nextId = 1;
  /** One timer for all requests, because creating a timer costs as much as sending a request. */
  readonly #timer: Registration;
  #unreadReceipts = 0;

  /** @param directory the directory of the data file, which also holds the FIFOs */
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
    // A predecessor in this slot may have been killed during its wait. Its tokens are still in the FIFOs.
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
      // If polling finds no answer, the event loop delivers it later.
      if (isLone && this.#isBusyPollWorthwhile && this.#kernel.busyPoll(this.#pollFd, 1, BUSY_POLL_MS) > 0)
        this.#onConfirm(this.#confirmFifo.read());
    });
  }

  #send(pending: Pending): void {
    if (this.#pendingAcks.length >= MAX_PENDING_ACKS) this.flushAcks();
    // If the FIFO is full, the write has no effect and the timer sends the request again.
    this.#request.write(Buffer.concat([...pending.requests.values()].map(encodeRequest)));
  }

  #onConfirm(bytes: Buffer): void {
    const all = this.#partialToken.length > 0 ? Buffer.concat([this.#partialToken, bytes]) : bytes;
    const whole = all.length - (all.length % ANSWER_BYTES);
    this.#partialToken = Buffer.from(all.subarray(whole));
    const answers = decodeAnswers(all.subarray(0, whole), 'confirm');
    // Bytes that are not a token came from another program. Drop the partial token too: otherwise all later
    // tokens would be read at a wrong offset.
    if (answers.length * ANSWER_BYTES < whole) this.#partialToken = Buffer.alloc(0);
    const mine = answers.filter((answer) => this.#accept(answer));
    if (mine.length === 0) return;
    // The receipts came before the confirmations. Read them before the FIFO fills up.
    this.#unreadReceipts += mine.length;
    if (this.#unreadReceipts >= MAX_UNREAD_RECEIPTS) this.#readReceipts();
    for (const { id, batch, helper, incarnation } of mine) {
      this.#pendingAcks.push(encodeConfirmAck({ slot: this.#slot, incarnation, id, batch, helper }));
    }
    const pending = this.#pending;
    if (!pending || pending.requests.size > 0) return;
    this.#finish(pending.errno === 0 ? { state: 'synced' } : { state: 'failed', errno: pending.errno });
  }

  /**
   * Accepts a confirmation if it names a pending request of this incarnation. @returns whether the
   * confirmation was accepted
   */
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

  /**
   * Sends the pending requests again if the helper was replaced or has sent no receipt for them: the
   * requests may be lost. Gives the requests up after the request time-out.
   */
  #checkTimeouts(): void {
    const pending = this.#pending;
    if (!pending) return;
    if (this.#kernel.monotonicMs() - pending.sinceMs >= this.#timeouts.requestTimeoutMs) {
      this.#finish({ state: 'timed-out' });
      return;
    }
    // The first tick proves nothing: the requests may have been sent a moment ago.
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

/** Longest wait of DirectSync for the sync of another process, in milliseconds. */
const DIRECT_SYNC_TIMEOUT_MS = 5000;
/** Milliseconds between two attempts of DirectSync to start. */
const DIRECT_SYNC_RETRY_MS = 2;

/** The part of a pair that DirectSync uses. */
export interface SyncablePair {
  kernel: Kernel;
  data: DataMap;
  image: IndexImage;
  locks: LockFile;
  redirtyUnconfirmed(): void;
}

/**
 * Syncs without a helper, by msync in the caller's thread. The dead-letter queue, which is rarely written, uses it.
 * During a sync this process takes the place of the helper: it holds the lock of the sync and keeps `syncing` set, so
 * that the next process learns of a sync that did not end.
 *
 * The wait for another process that syncs does not block the thread: that process may be stopped, and the thread has
 * the connections of a worker.
 */
export class DirectSync implements SyncPort {
  readonly #pair: SyncablePair;
  readonly #createClient: (() => SyncPort) | undefined;
  #client: SyncPort | undefined;

  /**
   * @param createClient makes a client of the helper. It is called when a helper serves the data file, which may start
   * and stop at any time. Without it the data file has no helper.
   */
  constructor(pair: SyncablePair, createClient?: () => SyncPort) {
    this.#pair = pair;
    this.#createClient = createClient;
  }

  async sync(ranges: readonly Range[], isLone = false): Promise<SyncResult> {
    const { kernel } = this.#pair;
    const endMs = kernel.monotonicMs() + DIRECT_SYNC_TIMEOUT_MS;
    for (;;) {
      const result = this.#trySync(ranges, isLone);
      if (result !== undefined) return result;
      if (kernel.monotonicMs() >= endMs) return { state: 'timed-out' };
      await new Promise<void>((resolve) => kernel.after(DIRECT_SYNC_RETRY_MS, resolve));
    }
  }

  /** Syncs by the helper if there is one. @returns undefined when another process syncs at this moment */
  #trySync(ranges: readonly Range[], isLone: boolean): Promise<SyncResult> | SyncResult | undefined {
    const { image, locks } = this.#pair;
    if (this.#createClient !== undefined && locks.isHeldElsewhere(LOCK.helper)) {
      this.#client ??= this.#createClient();
      return this.#client.sync(ranges, isLone);
    }
    if (!locks.tryLock(LOCK.dataSync)) return undefined;
    try {
      if (image.get(FIELD.syncing) !== 0) this.#pair.redirtyUnconfirmed();
      image.put(FIELD.syncing, 1);
      const errno = this.#syncAll(ranges);
      if (errno !== 0) this.#pair.redirtyUnconfirmed();
      image.put(FIELD.syncing, 0);
      return errno === 0 ? { state: 'synced' } : { state: 'failed', errno };
    } finally {
      locks.unlock(LOCK.dataSync);
    }
  }

  /** @returns 0, or the errno of the first failure */
  #syncAll(ranges: readonly Range[]): number {
    for (const { offset, length } of ranges) {
      const errno = this.#pair.data.sync(offset, length);
      if (errno !== 0) return errno;
    }
    return 0;
  }

  flushAcks(): void {
    this.#client?.flushAcks();
  }

  close(): void {
    this.#client?.close();
  }
}
