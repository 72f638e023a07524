import { QueueError } from '../../common/platform/errors.js';
import type { Kernel } from '../../common/platform/kernel.js';
import type { Log, StagedOperation } from '../log/log.js';
import { type CommitOutcome, rejected } from './types.js';

/** What happens to transactions beside the log. */
export interface TransactionHandlers<Staged extends StagedOperation> {
  /** Splices transactions whose records are on the disk into the queues, in this order. */
  splice(transactions: readonly (readonly Staged[])[]): void;
  /** Is called when transactions were spliced, before their clients go on. */
  onCommitted(): void;
  /** Takes transactions back that are rejected: nothing of them was written. */
  takeBack(transactions: readonly (readonly Staged[])[]): void;
  /** Is called once when the log can no longer be written. */
  onFailed(error: unknown): void;
}

/** Transactions that are logged together. All of them have the same outcome, and one promise of it. */
interface Batch<Staged> {
  readonly transactions: (readonly Staged[])[];
  /** Bytes of the records, and of the ends of segments that they leave unused. */
  extent: number;
  /** Memory that the messages will take, in bytes. */
  memoryBytes: number;
  readonly outcome: Promise<CommitOutcome>;
  readonly resolve: (outcome: CommitOutcome) => void;
  readonly reject: (error: unknown) => void;
}

/** Upper bound of the bytes of a batch, so that the first transaction does not wait for very many others. */
const MAX_BATCH_BYTES = 8 * 2 ** 20;
/** Number of syncs that may block this thread after a sync during which no transaction came. */
const BLOCKING_SYNCS = 15;
const COMMITTED: CommitOutcome = { outcome: 'committed' };

/**
 * Group commit: one write and one sync of the log for all transactions that wait. A transaction is logged, then spliced into the
 * queues, then answered.
 */
export class TransactionLog<Staged extends StagedOperation> {
  readonly #log: Log;
  readonly #handlers: TransactionHandlers<Staged>;
  readonly #kernel: Pick<Kernel, 'defer'>;
  #waiting: Batch<Staged>[] = [];
  /** Memory that the messages of all waiting and present transactions will take, in bytes. */
  #memoryBytes = 0;
  /** Position behind the transactions that wait or are being written. When there are none, it is below that of the log. */
  #plannedEnd = 0;
  #isRunning = false;
  readonly #onIdle: (() => void)[] = [];
  /** Beginning of the records that are logged and not yet spliced; undefined when all are spliced. */
  #unspliced: number | undefined;
  /** Number of the next syncs that may block this thread. */
  #blockingSyncs = 0;
  #failure: unknown;

  constructor(log: Log, handlers: TransactionHandlers<Staged>, kernel: Pick<Kernel, 'defer'>) {
    this.#kernel = kernel;
    this.#log = log;
    this.#handlers = handlers;
  }

  /**
   * Lowest position of a transaction that may be logged and is not yet spliced; the end of the log when there is none. A
   * checkpoint needs the log from this position on, and nothing before it.
   */
  get redoPosition(): number {
    return this.#unspliced ?? this.#log.position;
  }

  /** Memory that the messages of the transactions that are not yet spliced will take, in bytes. */
  get memoryBytes(): number {
    return this.#memoryBytes;
  }

  /** Returns the bytes that are free in the log after the waiting transactions and the given operations. */
  freeBytes(operations: readonly StagedOperation[] = []): number {
    return this.#log.limit - this.#endWith(operations);
  }

  /** Returns the position behind the waiting transactions and these operations. Unused ends of segments count as written. */
  #endWith(operations: readonly StagedOperation[]): number {
    return this.#log.endOf(operations, Math.max(this.#plannedEnd, this.#log.position));
  }

  /** Waits until no transaction waits or is being written. */
  async whenIdle(): Promise<void> {
    while (this.#isRunning) await new Promise<void>((resolve) => this.#onIdle.push(resolve));
  }

  #stop(): void {
    this.#isRunning = false;
    this.#plannedEnd = 0;
    for (const resolve of this.#onIdle.splice(0)) resolve();
  }

  /**
   * Logs a transaction and splices it into the queues. All transactions of a batch share one promise, because a promise for each
   * would take a good part of the time of a commit.
   * @param memoryBytes memory that its messages will take.
   * @returns `rejected` when nothing was written. A rejection of the promise means: it is unknown whether a recovery will find
   *   the transaction.
   */
  commit(operations: readonly Staged[], memoryBytes = 0): Promise<CommitOutcome> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const begin = Math.max(this.#plannedEnd, this.#log.position);
    this.#plannedEnd = this.#log.endOf(operations, begin);
    const batch = this.#batchFor(this.#plannedEnd - begin);
    batch.transactions.push(operations);
    batch.memoryBytes += memoryBytes;
    this.#memoryBytes += memoryBytes;
    if (!this.#isRunning) void this.#run();
    return batch.outcome;
  }

  /** Returns the batch for a transaction of this extent, which it counts. */
  #batchFor(extent: number): Batch<Staged> {
    let batch = this.#waiting.at(-1);
    if (batch === undefined || batch.extent + extent > MAX_BATCH_BYTES) {
      batch = newBatch();
      this.#waiting.push(batch);
    }
    batch.extent += extent;
    return batch;
  }

  /** Writes a record that states what is synced. A transaction in progress makes it unnecessary: its records state it. */
  async note(): Promise<void> {
    if (this.#isRunning || this.#failure !== undefined || !this.#log.needsNote) return;
    this.#isRunning = true;
    try {
      await this.#log.appendNote();
    } catch (error) {
      this.#fail(error);
    }
    await this.#run();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    try {
      while (this.#waiting.length > 0) {
        await this.#gather();
        const batch = this.#waiting.shift();
        if (batch !== undefined) await this.#commitBatch(batch);
      }
    } catch (error) {
      this.#fail(error);
    }
    this.#stop();
  }

  /**
   * Waits for the other transactions of this turn of the event loop. Clients that got their answers together send their next
   * requests together. Without this wait, the first of them would have a sync of its own.
   */
  async #gather(): Promise<void> {
    await new Promise<void>((resolve) => this.#kernel.defer(resolve));
  }

  async #commitBatch(batch: Batch<Staged>): Promise<void> {
    this.#unspliced = this.#log.position;
    try {
      await this.#append(batch);
      this.#handlers.splice(batch.transactions);
    } catch (error) {
      this.#fail(error, batch);
      return;
    }
    this.#unspliced = undefined;
    this.#memoryBytes -= batch.memoryBytes;
    batch.resolve(COMMITTED);
    this.#handlers.onCommitted();
  }

  /**
   * Appends a batch to the log. The sync may block this thread in two cases: the transaction is alone, or no transaction came
   * during an earlier sync, so that all clients wait for this one. After `BLOCKING_SYNCS` such syncs, one that does not block shows
   * whether transactions come meanwhile.
   */
  async #append({ transactions }: Batch<Staged>): Promise<void> {
    const isAlone = transactions.length === 1;
    const mayBlock = isAlone || this.#blockingSyncs > 0;
    await this.#log.append(transactions, mayBlock);
    if (isAlone) return;
    if (this.#waiting.length > 0) this.#blockingSyncs = 0;
    else this.#blockingSyncs = mayBlock ? this.#blockingSyncs - 1 : BLOCKING_SYNCS;
  }

  #fail(error: unknown, batch?: Batch<Staged>): void {
    if (batch !== undefined) this.#memoryBytes -= batch.memoryBytes;
    const isHarmless = error instanceof QueueError && error.code === 'no-space-on-disk';
    if (isHarmless) {
      this.#unspliced = undefined;
      this.#plannedEnd = this.#log.position;
      for (const { transactions } of this.#waiting)
        for (const operations of transactions) this.#plannedEnd = this.#endWith(operations);
      if (batch === undefined) return;
      this.#handlers.takeBack(batch.transactions);
      batch.resolve(rejected('full', error.message));
      return;
    }
    this.#failure = error;
    batch?.reject(error);
    for (const waiting of this.#waiting.splice(0)) {
      this.#memoryBytes -= waiting.memoryBytes;
      waiting.reject(error);
    }
    this.#handlers.onFailed(error);
  }
}

function newBatch<Staged>(): Batch<Staged> {
  let resolve: Batch<Staged>['resolve'] = () => undefined;
  let reject: Batch<Staged>['reject'] = () => undefined;
  const outcome = new Promise<CommitOutcome>((onResolved, onRejected) => {
    resolve = onResolved;
    reject = onRejected;
  });
  return { transactions: [], extent: 0, memoryBytes: 0, outcome, resolve, reject };
}
