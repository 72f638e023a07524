import { QueueError } from '../../common/platform/errors.js';
import { Fifo } from '../../common/platform/fifo.js';
import type { Kernel } from '../../common/platform/kernel.js';
import { FIELD } from '../index/layout.js';
import { LOCK } from '../index/lock-bytes.js';
import { Pair } from '../queue/pair.js';
import { hostPlatform, type Platform } from '../queue/platform.js';
import type { QueueSettings } from '../settings/settings.js';
import { Batcher } from '../sync/batcher.js';
import {
  ANSWER_READ_BYTES,
  type Answer,
  decodeConfirmAcks,
  decodeRequests,
  encodeAnswer,
  fifoPaths,
  REQUEST_READ_BYTES,
  type SyncRequest,
} from '../sync/tokens.js';

/** Longest wait of a new helper, in milliseconds, for the sync of a command that began before the helper started. */
const DIRECT_SYNC_WAIT_MS = 10_000;
/** Longest time, in milliseconds, that the helper blocks before it checks the stop signal. */
const MAX_WAIT_MS = 100;
/**
 * Time, in ms, that the helper polls for the next request of a lone worker. Such a worker needs this time
 * from an answer to its next request.
 */
const BUSY_POLL_MS = 0.1;
/**
 * Number of tokens in one write. 160 tokens of 24 bytes are below PIPE_BUF (4096), so that a write takes
 * effect whole or not at all.
 */
const MAX_TOKENS_PER_WRITE = 160;

/**
 * Runs the sync helper: one process per data file that gathers the requests of the workers, writes each batch
 * with msync and confirms it (patent [0037-0045]).
 *
 * It deliberately blocks its only thread in poll(2) and msync(2). It has no other work during these calls,
 * and a thread pool would cost a third of the throughput.
 *
 * It resolves after `signal` is aborted, when all requests received by then are written and answered.
 *
 * @throws QueueError `second-helper` when another helper serves this data file, `mutex-held` when a command syncs
 * it for too long, `bad-setting` when the queue has no pair with this number
 */
export async function runHelper(
  settings: QueueSettings,
  pairNumber: number,
  signal: AbortSignal,
  onReady: () => void,
  platform: Platform = hostPlatform,
): Promise<void> {
  const directories = settings.pairs[pairNumber];
  if (!directories) {
    throw new QueueError(
      'bad-setting',
      `pair ${pairNumber}: expected a number from 0 to ${settings.pairs.length - 1}`,
    );
  }
  const pair = Pair.open(directories, settings, platform);
  pair.logRestore();
  if (!pair.locks.tryLock(LOCK.helper)) {
    pair.close();
    throw new QueueError(
      'second-helper',
      `${directories.directory} has a sync helper already: one per data file`,
    );
  }
  // A command of the operator may sync the file itself at this moment. It sees the lock above and stops after that.
  if (!pair.locks.lockWithin(LOCK.dataSync, DIRECT_SYNC_WAIT_MS)) {
    pair.close();
    throw new QueueError(
      'mutex-held',
      `another process syncs ${directories.directory} for ${DIRECT_SYNC_WAIT_MS} ms: is it stopped?`,
    );
  }
  const helper = new Helper(pair, settings);
  onReady();
  try {
    await helper.serve(signal);
  } finally {
    helper.close();
  }
}

class Helper {
  readonly #kernel: Kernel;
  readonly #pair: Pair;
  readonly #incarnation: number;
  readonly #batcher: Batcher;
  readonly #fifoPaths: ReturnType<typeof fifoPaths>;
  readonly #requests: Fifo;
  readonly #confirmAcks: Fifo;
  readonly #answers = new Map<string, Fifo>();
  /** struct pollfd[2]: i32 fd, i16 events, i16 revents. */
  readonly #pollFds = Buffer.alloc(16);
  #batch = 0;
  /**
   * Whether one worker alone seems to use the helper: the last batch had one request, and no poll for a next
   * request has failed since.
   */
  #hasLoneWorker = false;

  constructor(pair: Pair, settings: QueueSettings) {
    this.#kernel = pair.kernel;
    this.#pair = pair;
    this.#fifoPaths = fifoPaths(pair.directories.directory);
    this.#requests = new Fifo(this.#fifoPaths.request, REQUEST_READ_BYTES, this.#kernel);
    this.#confirmAcks = new Fifo(this.#fifoPaths.confirmAck, ANSWER_READ_BYTES, this.#kernel);
    this.#confirmAcks.drain();
    this.#batcher = new Batcher(settings.sync, this.#kernel.monotonicMs());
    const POLLIN = 1;
    this.#pollFds.writeInt32LE(this.#requests.fd, 0);
    this.#pollFds.writeInt16LE(POLLIN, 4);
    this.#pollFds.writeInt32LE(this.#confirmAcks.fd, 8);
    this.#pollFds.writeInt16LE(POLLIN, 12);
    // The last helper died during its msync. That msync may have failed, which marks the pages clean without
    // writing them.
    if (pair.image.get(FIELD.syncing) !== 0) pair.redirtyUnconfirmed();
    pair.image.put(FIELD.syncing, 0);
    // The workers see the new number and send their requests to the new helper. The number must be unsigned,
    // as in the tokens: a damaged index may contain any bits here.
    this.#incarnation = (pair.image.add(FIELD.helperIncarnation, 1) + 1) >>> 0;
  }

  /** Serves requests until the signal is aborted, then writes and confirms the rest. */
  async serve(signal: AbortSignal): Promise<void> {
    let lastYieldMs = this.#kernel.monotonicMs();
    while (!signal.aborted) {
      const ready = this.#wait();
      this.#receive();
      this.#writeIfDue();
      const nowMs = this.#kernel.monotonicMs();
      if (!ready || nowMs - lastYieldMs > MAX_WAIT_MS) {
        await new Promise<void>((resolve) => this.#kernel.defer(resolve));
        lastYieldMs = nowMs;
      }
    }
    // The last requests may have arrived in the confirming phase. Confirmations are no longer awaited.
    this.#wait();
    this.#receive();
    // The stored requests may need several batches.
    do {
      this.#batcher.clearConfirmed(Number.POSITIVE_INFINITY);
      this.#write();
    } while (this.#batcher.requests().length + this.#batcher.storedCount > 0);
  }

  /**
   * Waits for a token or until the batch is due. A lone worker sends its next request right after its answer,
   * sooner than a sleeping processor wakes up. Therefore the helper polls for a moment after a batch of one
   * request.
   */
  #wait(): boolean {
    if (this.#hasLoneWorker) {
      if (this.#kernel.busyPoll(this.#pollFds, 2, BUSY_POLL_MS) > 0) return true;
      this.#hasLoneWorker = false;
    }
    const waitMs = this.#batcher.waitMs(this.#kernel.monotonicMs()) ?? MAX_WAIT_MS;
    return this.#kernel.poll(this.#pollFds, 2, Math.min(Math.ceil(waitMs), MAX_WAIT_MS)) > 0;
  }

  /** Reads the FIFOs that poll(2) reported, confirmations of confirmations first. */
  #receive(): void {
    if (this.#pollFds.readInt16LE(14) !== 0) {
      for (const token of decodeConfirmAcks(this.#confirmAcks.read())) {
        if (token.helper === this.#incarnation) this.#batcher.confirmed(token);
      }
    }
    // Clear before reading new requests, because stored requests must enter the next batch first.
    this.#batcher.clearConfirmed(this.#kernel.monotonicMs());
    if (this.#pollFds.readInt16LE(6) !== 0) this.#receiveRequests();
  }

  #receiveRequests(): void {
    const nowMs = this.#kernel.monotonicMs();
    const receipts = new Map<number, Buffer[]>();
    for (const request of decodeRequests(this.#requests.read())) {
      if (!this.#isValid(request)) continue;
      this.#batcher.receive(request, nowMs);
      const list = receipts.get(request.slot) ?? [];
      list.push(encodeAnswer(this.#answer('receipt', request, 0)));
      receipts.set(request.slot, list);
    }
    for (const [slot, list] of receipts) this.#send('receipt', slot, list);
  }

  /**
   * Returns whether a request names a worker slot and a range of the file. Any other request is skipped
   * (patent [0051]).
   */
  #isValid({ slot, offset, length }: SyncRequest): boolean {
    const inFile = offset >= 0 && length > 0 && offset + length <= this.#pair.data.sizeBytes;
    return inFile && slot < this.#pair.image.geometry.workerSlots;
  }

  #answer(kind: Answer['kind'], request: SyncRequest, errno: number): Answer {
    const { incarnation, id } = request;
    return { kind, helper: this.#incarnation, incarnation, id, batch: this.#batch, errno };
  }

  #writeIfDue(): void {
    if (this.#batcher.isDue(this.#kernel.monotonicMs())) this.#write();
  }

  /**
   * Writes the batch and then confirms it (patent [0017]). The reverse order would confirm messages that are
   * not on the disk.
   */
  #write(): void {
    const requests = this.#batcher.requests();
    if (this.#batcher.phase === 'confirming' || requests.length === 0) return;
    this.#batch += 1;
    this.#hasLoneWorker = requests.length === 1;
    this.#pair.image.add(FIELD.batches, 1);
    const errno = this.#syncBatch();
    const bySlot = new Map<number, SyncRequest[]>();
    for (const request of requests) {
      const list = bySlot.get(request.slot) ?? [];
      list.push(request);
      bySlot.set(request.slot, list);
    }
    const reached: SyncRequest[] = [];
    for (const [slot, list] of bySlot) {
      const tokens = list.map((request) => encodeAnswer(this.#answer('confirm', request, errno)));
      if (this.#send('confirm', slot, tokens)) reached.push(...list);
    }
    this.#batcher.written(reached, this.#kernel.monotonicMs());
  }

  /** Writes the ranges of the batch to the disk. @returns 0, or the errno of the first msync that failed */
  #syncBatch(): number {
    const { data, image } = this.#pair;
    image.put(FIELD.syncing, 1);
    for (const { offset, length } of this.#batcher.ranges()) {
      const errno = data.sync(offset, length);
      if (errno === 0) continue;
      this.#pair.redirtyUnconfirmed();
      image.put(FIELD.syncing, 0);
      return errno;
    }
    image.put(FIELD.syncing, 0);
    return 0;
  }

  /** Sends tokens to a worker. @returns false when its FIFO is full because the worker is dead or stopped */
  #send(kind: 'receipt' | 'confirm', slot: number, tokens: Buffer[]): boolean {
    const key = `${kind}/${slot}`;
    let fifo = this.#answers.get(key);
    if (!fifo) {
      fifo = new Fifo(this.#fifoPaths[kind](slot), ANSWER_READ_BYTES, this.#kernel);
      this.#answers.set(key, fifo);
    }
    let reached = true;
    for (let at = 0; at < tokens.length; at += MAX_TOKENS_PER_WRITE) {
      reached = fifo.write(Buffer.concat(tokens.slice(at, at + MAX_TOKENS_PER_WRITE))) && reached;
    }
    return reached;
  }

  close(): void {
    for (const fifo of [this.#requests, this.#confirmAcks, ...this.#answers.values()]) fifo.close();
    this.#pair.close();
  }
}
