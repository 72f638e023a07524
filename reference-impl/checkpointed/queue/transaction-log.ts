import { QueueError } from '../../common/platform/errors.js';
import type { Kernel } from '../../common/platform/kernel.js';
import type { Log, StagedOperation } from '../log/log.js';

/** A transaction whose records are on the disk. */
export interface LoggedTransaction<Staged extends StagedOperation> {
  operations: readonly Staged[];
  /** Position of the record of each operation. */
  positions: readonly number[];
}

interface Waiting<Staged> {
  operations: readonly Staged[];
  /** Bytes of its records, and of the end of a segment that they leave unused. */
  extent: number;
  resolve: () => void;
  reject: (error: unknown) => void;
}

/** Upper bound of the bytes of a batch, so that the first transaction does not wait for very many others. */
const MAX_BATCH_BYTES = 8 * 2 ** 20;

/**
 * Group commit: one write and one sync of the log for all transactions that wait. A transaction is logged, then spliced into the
 * queues, then answered.
 */
export class TransactionLog<Staged extends StagedOperation> {
  readonly #log: Log;
  readonly #splice: (transactions: readonly LoggedTransaction<Staged>[]) => void;
  readonly #onFailed: (error: unknown) => void;
  readonly #kernel: Pick<Kernel, 'defer'>;
  #waiting: Waiting<Staged>[] = [];
  /** Position behind the transactions that wait or are being written. When there are none, it is below that of the log. */
  #plannedEnd = 0;
  #isRunning = false;
  readonly #onIdle: (() => void)[] = [];
  /** Beginning of the records that are logged and not yet spliced; undefined when all are spliced. */
  #unspliced: number | undefined;
  #failure: unknown;

  /**
   * @param splice splices transactions into the queues, in this order.
   * @param onFailed is called once when the log can no longer be written.
   */
  constructor(
    log: Log,
    splice: (transactions: readonly LoggedTransaction<Staged>[]) => void,
    onFailed: (error: unknown) => void,
    kernel: Pick<Kernel, 'defer'>,
  ) {
    this.#kernel = kernel;
    this.#log = log;
    this.#splice = splice;
    this.#onFailed = onFailed;
  }

  /**
   * Lowest position of a transaction that may be logged and is not yet spliced; the end of the log when there is none. A
   * checkpoint needs the log from this position on, and nothing before it.
   */
  get redoPosition(): number {
    return this.#unspliced ?? this.#log.position;
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
   * Logs a transaction and splices it into the queues.
   * @throws QueueError `no-space-on-disk`: nothing was written. After any other error it is unknown whether a recovery will find
   *   the transaction.
   */
  async commit(operations: readonly Staged[]): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const begin = this.#endWith([]);
    this.#plannedEnd = this.#endWith(operations);
    const extent = this.#plannedEnd - begin;
    const committed = new Promise<void>((resolve, reject) => {
      this.#waiting.push({ operations, extent, resolve, reject });
    });
    if (!this.#isRunning) void this.#run();
    await committed;
  }

  /** Writes a record that states what is synced. A transaction in progress makes it unnecessary: its records state it. */
  async note(): Promise<void> {
    if (this.#isRunning || this.#failure !== undefined || !this.#log.needsNote) return;
    this.#isRunning = true;
    try {
      await this.#log.appendNote();
    } catch (error) {
      this.#fail(error, []);
    }
    await this.#run();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    try {
      while (this.#waiting.length > 0) {
        await this.#gather();
        await this.#commitBatch(this.#nextBatch());
      }
    } catch (error) {
      this.#fail(error, []);
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

  #nextBatch(): Waiting<Staged>[] {
    let bytes = 0;
    let count = 0;
    for (const { extent } of this.#waiting) {
      if (count > 0 && bytes + extent > MAX_BATCH_BYTES) break;
      bytes += extent;
      count += 1;
    }
    return this.#waiting.splice(0, count);
  }

  async #commitBatch(batch: readonly Waiting<Staged>[]): Promise<void> {
    this.#unspliced = this.#log.position;
    try {
      const positions = await this.#log.append(batch.map(({ operations }) => operations));
      this.#splice(batch.map(({ operations }, at) => ({ operations, positions: positions[at] ?? [] })));
    } catch (error) {
      this.#fail(error, batch);
      return;
    }
    this.#unspliced = undefined;
    for (const { resolve } of batch) resolve();
  }

  #fail(error: unknown, batch: readonly Waiting<Staged>[]): void {
    const isHarmless = error instanceof QueueError && error.code === 'no-space-on-disk';
    for (const { reject } of batch) reject(error);
    if (isHarmless) {
      this.#unspliced = undefined;
      const waiting = this.#waiting.flatMap(({ operations }) => operations);
      this.#plannedEnd = this.#log.endOf(waiting, this.#log.position);
      return;
    }
    this.#failure = error;
    for (const { reject } of this.#waiting.splice(0)) reject(error);
    this.#onFailed(error);
  }
}
