import { syncDirectory } from '../../common/platform/directory.js';
import { QueueError } from '../../common/platform/errors.js';
import type { Kernel, Registration } from '../../common/platform/kernel.js';
import { LockFile } from '../../common/platform/locks.js';
import { Checkpointer } from '../checkpoint/checkpointer.js';
import { CONTROL_LOCK, checkDefinition, MAX_QUEUES } from '../checkpoint/control.js';
import type { Host } from '../host.js';
import { Log } from '../log/log.js';
import { OPERATION } from '../log/record.js';
import { listSegments, removePartialSegments, SegmentRing } from '../log/segment-ring.js';
import { defaultQueueOf, isDefaultQueue } from '../memory/default-queues.js';
import { type MemoryQueue, memoryOf, type QueueDefinition } from '../memory/memory-queue.js';
import type { Message } from '../memory/message-list.js';
import { QueueSet } from '../memory/queue-set.js';
import { keepAside } from '../recovery/aside.js';
import { readState, type StoredState, syncSlots } from '../recovery/read-state.js';
import {
  type InstalledSettings,
  MAX_ID_BYTES,
  maxMessageBytes,
  pathsOf,
  type RunSettings,
  readSettings,
} from '../settings.js';
import { restoreInto } from './restore-into.js';
import { type StagedChange, splice } from './splice.js';
import { Transaction } from './transaction.js';
import { TransactionLog } from './transaction-log.js';
import {
  type Change,
  type CommitOutcome,
  type Held,
  type NewMessage,
  type Rejection,
  rejected,
  type TakenMessage,
} from './types.js';

/** Interval at which a record states that the newest transactions are synced, in milliseconds. */
const NOTE_INTERVAL_MS = 20;
/** Shortest time between a failed checkpoint and an early one, in milliseconds. */
const RETRY_INTERVAL_MS = 200;
/** Used part of the log at which an early checkpoint is made, from 0 to 1. */
const URGENT_LOG_USE = 0.5;
/** Part of the time between two checkpoints over which the slots of one are written. */
const SPREAD = 0.5;
const NOTHING = Buffer.alloc(0);

/** Figures of a running queue. */
export interface QueueFigures {
  messages: number;
  /** Memory of all messages, in bytes. */
  bytes: number;
  checkpoints: number;
  failedCheckpoints: number;
  /** Bytes of the log that are in use, and of the whole ring. */
  logBytes: number;
  logCapacityBytes: number;
  /** How often a queue was locked, and the sum of these times in milliseconds. */
  locks: number;
  lockedMs: number;
  /** Time since the start, in milliseconds. */
  upMs: number;
}

/**
 * A memory queue with checkpoints and a log. Messages are in volatile memory, in several queues. A transaction is staged
 * privately, logged, and then spliced into the queues. At time intervals a checkpoint copies definition and contents of each
 * queue that has changed to persistent storage. A recovery reads the last checkpoint and redoes the log behind it.
 */
export class CheckpointedQueue {
  readonly #kernel: Kernel;
  readonly #settings: InstalledSettings;
  readonly #maxMessageBytes: number;
  readonly #run: RunSettings;
  readonly #lock: LockFile;
  readonly #queues: QueueSet;
  readonly #checkpointer: Checkpointer;
  readonly #generation: number;
  readonly #log: Log;
  readonly #transactions: TransactionLog<StagedChange>;
  readonly #timers: Registration[] = [];
  readonly #onReady: (() => void)[] = [];
  readonly #controlFd: number;
  readonly #logDirectory: string;
  readonly #startedMs: number;
  #checkpoint: Promise<void> | undefined;
  #checkpoints = 0;
  #failedCheckpoints = 0;
  /** When the last checkpoint failed, on the monotonic clock. */
  #failedAtMs = Number.NEGATIVE_INFINITY;
  /** Index at which the search for the next message begins. It moves on, so that every queue gets its turn. */
  #turn = 0;
  #reportFailure: (error: unknown) => void = () => undefined;
  /** Whether the checkpoint that is being made must end soon. */
  #isUrgent = false;
  #hasFailed = false;
  #isClosed = false;
  /** Rejects when the queue has failed. Its process must then end, and the next start recovers. */
  readonly failure: Promise<never>;

  /**
   * Restores a queue and opens it.
   * @throws QueueError `not-a-queue`, `queue-in-use`, `damaged-queue`; `sync-failed` when the restored state cannot be written.
   */
  static async open(directory: string, run: RunSettings, host: Host): Promise<CheckpointedQueue> {
    const settings = readSettings(directory, host.kernel);
    const paths = pathsOf(directory);
    const hasControl = host.kernel.exists(paths.control);
    const lock = new LockFile(paths.control, host.kernel);
    if (!lock.tryLock(CONTROL_LOCK.server)) {
      lock.close();
      throw new QueueError('queue-in-use', `${directory} is in use: expected no other server on this queue`);
    }
    let controlFd: number | undefined;
    let queue: CheckpointedQueue | undefined;
    try {
      // If the control file was missing, the lock has made it. Sync its name: otherwise a power cut removes the file with all
      // later control records.
      if (!hasControl) syncDirectory(directory, host.kernel);
      const state = readState(directory, settings, host.kernel);
      if (state.isFromSlots) syncSlots(paths.queues, state.control.queues, host.kernel);
      keepAside(paths.aside, state.damaged, host.kernel);
      controlFd = host.kernel.open(paths.control, 'r+');
      queue = new CheckpointedQueue({ directory, settings, run, host, lock, controlFd, state });
      await queue.#start();
      return queue;
    } catch (error) {
      if (queue !== undefined) queue.#closeFiles();
      else {
        if (controlFd !== undefined) host.kernel.close(controlFd);
        lock.close();
      }
      throw error;
    }
  }

  private constructor(parts: {
    directory: string;
    settings: InstalledSettings;
    run: RunSettings;
    host: Host;
    lock: LockFile;
    controlFd: number;
    state: StoredState;
  }) {
    const { directory, settings, run, host, lock, controlFd, state } = parts;
    const { kernel } = host;
    const paths = pathsOf(directory);
    this.#kernel = kernel;
    this.#settings = settings;
    this.#maxMessageBytes = maxMessageBytes(settings);
    this.#run = run;
    this.#lock = lock;
    this.#startedMs = kernel.monotonicMs();
    this.#controlFd = controlFd;
    this.#queues = new QueueSet(kernel);
    restoreInto(this.#queues, state.queues);
    this.#generation = state.generation + 1;
    const inForce = state.control;
    const { key } = settings;
    this.#checkpointer = new Checkpointer({ host, directory: paths.queues, key, controlFd, lock, inForce });
    const { segmentBytes, segments } = settings;
    this.#logDirectory = paths.log;
    const ring = new SegmentRing(paths.log, segmentBytes, listSegments(paths.log, kernel), kernel);
    const start = { generation: this.#generation, position: state.nextSequence * segmentBytes };
    this.#log = new Log({ directory: paths.log, segmentBytes, segments, key }, ring, start, kernel);
    this.failure = new Promise((_, reject) => {
      this.#reportFailure = (error) => {
        this.#hasFailed = true;
        reject(error);
      };
    });
    this.failure.catch(() => undefined);
    this.#transactions = new TransactionLog<StagedChange>(
      this.#log,
      {
        splice: (transactions) => splice(this.#queues, transactions),
        onCommitted: () => this.#onCommitted(),
        takeBack: (transactions) => {
          for (const changes of transactions) this.#stay(changes);
        },
        onFailed: (error) => this.#reportFailure(error),
      },
      kernel,
    );
  }

  /**
   * Puts the restored state in force, with a new generation of the log. Only after that, old segments may be used again and
   * the queue is ready.
   */
  async #start(): Promise<void> {
    await this.#runCheckpoint(0);
    if (this.#failedCheckpoints > 0)
      throw new QueueError('sync-failed', 'the restored state cannot be written: see the line before');
    removePartialSegments(this.#logDirectory, this.#kernel);
    await this.#log.prepareNext();
    this.#timers.push(
      this.#kernel.every(this.#run.checkpointMs, () => void this.#checkpointInTime()),
      this.#kernel.every(NOTE_INTERVAL_MS, () => void this.#transactions.note().catch(() => undefined)),
    );
  }

  /** Begins a transaction. */
  begin(): Transaction {
    return new Transaction(this);
  }

  /** Calls back whenever a message may have become ready. */
  onReady(callback: () => void): void {
    this.#onReady.push(callback);
  }

  /** Takes the next ready message, from one queue or from any. */
  take(queueName?: string): TakenMessage | undefined {
    const named = queueName === undefined ? undefined : this.#queues.byName(queueName);
    if (queueName !== undefined) return named && this.#takeFrom(named);
    const queues = this.#queues.list();
    for (let tries = 0; tries < queues.length; tries += 1) {
      const queue = queues[this.#turn % queues.length];
      this.#turn += 1;
      const taken = queue && this.#takeFrom(queue);
      if (taken !== undefined) return taken;
    }
    return undefined;
  }

  #takeFrom(queue: MemoryQueue): Held | undefined {
    const message = queue.take();
    return message && { id: message.id, body: message.body, queue: queue.id, message };
  }

  /** Gives a taken message back: it is ready again, at its old place. */
  putBack(taken: TakenMessage): void {
    const { queue, message } = taken as Held;
    if (this.#queues.byId(queue)?.putBack(message)) this.#announce();
  }

  /**
   * Commits a transaction. It is durable, and its messages are ready, when the promise resolves. Transactions that are committed
   * together may share the promise.
   * @throws QueueError when it is unknown whether the next recovery will find the transaction.
   */
  commit({ puts, consumed }: Change): Promise<CommitOutcome> {
    if (puts.length === 1 && consumed.length === 0) return this.#commitPut(puts[0] as NewMessage);
    const changes: StagedChange[] = [];
    let bytes = 0;
    for (const put of puts) {
      const change = this.#stagedPut(put);
      if ('outcome' in change) return Promise.resolve(change);
      changes.push(change);
      bytes += memoryOf(put);
    }
    for (const taken of consumed as readonly Held[]) {
      const { queue, message } = taken;
      if (!this.#queues.byId(queue)?.leave(message)) {
        this.#stay(changes);
        return Promise.resolve(rejected('not-taken', `message ${taken.id} is not taken any more`));
      }
      changes.push(stagedConsumption(queue, message));
    }
    if (changes.length === 0) return Promise.resolve({ outcome: 'committed' });
    return this.#commitChanges(changes, bytes);
  }

  /** Commits a transaction of one put, without the lists that several operations need: most transactions are of this kind. */
  #commitPut(put: NewMessage): Promise<CommitOutcome> {
    const change = this.#stagedPut(put);
    if ('outcome' in change) return Promise.resolve(change);
    return this.#commitChanges([change], memoryOf(put));
  }

  /** Stages a put. It changes nothing. @returns the rejection when the message cannot be accepted. */
  #stagedPut({ id, body, queue: name }: NewMessage): StagedChange | Rejection {
    if (body.length > this.#maxMessageBytes)
      return rejected('too-large', `${body.length} bytes, expected at most ${this.#maxMessageBytes}`);
    const idBytes = Buffer.byteLength(id);
    if (idBytes > MAX_ID_BYTES)
      return rejected('too-large', `an id of ${idBytes} bytes, expected at most ${MAX_ID_BYTES}`);
    const queue = this.#queues.byName(name ?? defaultQueueOf(id, this.#settings.queues));
    if (queue === undefined) return rejected('no-such-queue', `found no queue ${name}`);
    const message: Message = { id, body, number: 0, next: undefined, previous: undefined };
    return {
      operation: OPERATION.put,
      queue: queue.id,
      number: 0,
      id,
      idBytes,
      body,
      position: 0,
      message,
      definition: undefined,
    };
  }

  /** Cancels the consumptions among some changes: the receivers still hold the messages. */
  #stay(changes: readonly StagedChange[]): void {
    for (const { operation, queue, message } of changes)
      if (operation === OPERATION.consume && message !== undefined) this.#queues.byId(queue)?.stay(message);
  }

  /** @param bytes memory that the transaction needs; 0 when it puts nothing. */
  #commitChanges(changes: readonly StagedChange[], bytes: number): Promise<CommitOutcome> {
    const refusal = this.#refusal(changes, bytes);
    if (refusal === undefined) return this.#transactions.commit(changes, bytes);
    this.#stay(changes);
    return Promise.resolve(refusal);
  }

  /** Returns why there is no room for a transaction. */
  #refusal(changes: readonly StagedChange[], bytes: number): CommitOutcome | undefined {
    if (bytes > 0 && this.#queues.bytes + this.#transactions.memoryBytes + bytes > this.#run.memoryBytes)
      return rejected('full', `${this.#run.memoryBytes} bytes of memory are in use`);
    // Consumptions may use the last segments: they are what makes space again.
    const reserved = bytes > 0 ? RESERVED_SEGMENTS * this.#settings.segmentBytes : 0;
    if (this.#transactions.freeBytes(changes) >= reserved) return undefined;
    this.#checkpointSoon();
    return rejected('full', 'the log is full until the next checkpoint');
  }

  #onCommitted(): void {
    if (this.#isLogUsed(URGENT_LOG_USE)) this.#checkpointSoon();
    this.#prepareSegment();
    this.#announce();
  }

  #announce(): void {
    for (const callback of this.#onReady) callback();
  }

  #isLogUsed(part: number): boolean {
    return this.#transactions.freeBytes() < this.#log.totalBytes * (1 - part);
  }

  /** Makes the next segment ready. If this fails, the transaction that needs the segment tries it again. */
  #prepareSegment(): void {
    if (!this.#log.isNextReady) this.#log.prepareNext().catch(() => undefined);
  }

  /** Creates a queue. @throws QueueError `bad-setting` for a wrong definition */
  async createQueue(definition: QueueDefinition): Promise<'created' | 'exists' | 'rejected'> {
    checkDefinition(definition);
    const { name } = definition;
    const other = this.#creating.get(name);
    if (other !== undefined) {
      await other;
      return this.createQueue(definition);
    }
    if (this.#queues.byName(name) !== undefined) return 'exists';
    if (this.#queues.list().length + this.#creating.size >= MAX_QUEUES) return 'rejected';
    const creation = this.#commitDefinition(OPERATION.create, 0, definition).finally(() => {
      this.#creating.delete(name);
    });
    this.#creating.set(
      name,
      creation.catch(() => undefined),
    );
    return (await creation) === 'rejected' ? 'rejected' : 'created';
  }

  /** Creations that are being logged, by name. A second creation waits: otherwise a recovery would make a queue of each record. */
  readonly #creating = new Map<string, Promise<unknown>>();

  /** Changes the definition of a queue. @throws QueueError `bad-setting` for a wrong definition */
  async changeQueue(definition: QueueDefinition): Promise<'changed' | 'no-such-queue' | 'rejected'> {
    checkDefinition(definition);
    const queue = this.#queues.byName(definition.name);
    if (queue === undefined) return 'no-such-queue';
    const outcome = await this.#commitDefinition(OPERATION.change, queue.id, definition);
    return outcome === 'rejected' ? 'rejected' : 'changed';
  }

  /** Deletes a queue with its messages. A default queue cannot be deleted. */
  async deleteQueue(name: string): Promise<'deleted' | 'no-such-queue' | 'rejected'> {
    const queue = this.#queues.byName(name);
    if (queue === undefined) return 'no-such-queue';
    if (isDefaultQueue(name, this.#settings.queues)) return 'rejected';
    const outcome = await this.#commitDefinition(OPERATION.delete, queue.id, queue.definition);
    return outcome === 'rejected' ? 'rejected' : 'deleted';
  }

  async #commitDefinition(
    operation: StagedChange['operation'],
    queue: number,
    definition: QueueDefinition,
  ): Promise<CommitOutcome['outcome']> {
    const body = Buffer.from(JSON.stringify(definition));
    const id = definition.name;
    const idBytes = Buffer.byteLength(id);
    const change = {
      operation,
      queue,
      number: 0,
      id,
      idBytes,
      body,
      position: 0,
      message: undefined,
      definition,
    };
    return (await this.#commitChanges([change], 0)).outcome;
  }

  /** Lists the queues with their figures. */
  queues(): { definition: QueueDefinition; messages: number; inDelivery: number; bytes: number }[] {
    return this.#queues.list().map((queue) => ({
      definition: queue.definition,
      messages: queue.length,
      inDelivery: queue.taken.size,
      bytes: queue.bytes,
    }));
  }

  /** Returns definition and messages of each queue, as a checkpoint would copy them. */
  contents(): { definition: QueueDefinition; messages: readonly Message[] }[] {
    return this.#queues.list().map((queue) => ({ definition: queue.definition, messages: queue.contents() }));
  }

  figures(): QueueFigures {
    const { count, lockedMs } = this.#queues.lockTimes;
    return {
      messages: this.#queues.list().reduce((sum, queue) => sum + queue.length, 0),
      bytes: this.#queues.bytes,
      checkpoints: this.#checkpoints,
      failedCheckpoints: this.#failedCheckpoints,
      logBytes: this.#log.totalBytes - this.#log.freeBytes,
      logCapacityBytes: this.#log.totalBytes,
      locks: count,
      lockedMs,
      upMs: this.#kernel.monotonicMs() - this.#startedMs,
    };
  }

  /** Makes a checkpoint now, or waits for the one in progress. @throws QueueError the same error as `failure` */
  checkpoint(): Promise<void> {
    return this.checkpointOver(0);
  }

  /**
   * Makes a checkpoint, and spreads its writes over some time: the log then has the disk to itself between two slots. A call of
   * `checkpoint`, or a log that fills up, ends the pauses.
   * @param overMs time over which the slots are written, in milliseconds.
   * @throws QueueError the same error as `failure`
   */
  async checkpointOver(overMs: number): Promise<void> {
    if (overMs === 0) this.#isUrgent = true;
    if (this.#checkpoint !== undefined) return this.#checkpoint;
    // Nobody knows which control record is in force: another checkpoint could overwrite slots that it names.
    if (this.#hasFailed) return this.failure;
    if (this.#isCovered()) return;
    this.#isUrgent = overMs === 0;
    this.#checkpoint = this.#runCheckpoint(overMs).finally(() => {
      this.#checkpoint = undefined;
    });
    await this.#checkpoint;
  }

  /** Makes the checkpoint of the time interval. A failure comes back from `failure`. */
  async #checkpointInTime(): Promise<void> {
    await this.checkpointOver(this.#run.checkpointMs * SPREAD).catch(() => undefined);
  }

  /** Whether the checkpoint in force is complete: no queue has changed, and the log contains nothing to redo. */
  #isCovered(): boolean {
    const redo = this.#transactions.redoPosition;
    const inForce = this.#checkpointer.inForce?.queues ?? [];
    return (
      inForce.every((entry) => entry.redo === redo) && this.#queues.list().every(({ changed }) => !changed)
    );
  }

  /** Makes an early checkpoint, unless one has just failed. */
  #checkpointSoon(): void {
    if (this.#kernel.monotonicMs() - this.#failedAtMs < RETRY_INTERVAL_MS) return;
    this.checkpoint().catch(() => undefined);
  }

  async #runCheckpoint(overMs: number): Promise<void> {
    let released: number | undefined;
    const changed = this.#queues.list().filter((queue) => queue.changed).length;
    const pauseMs = overMs / Math.max(1, changed);
    try {
      released = await this.#checkpointer.run({
        queues: () => this.#queues.list(),
        redoPosition: () => this.#transactions.redoPosition,
        generation: this.#generation,
        pauseMs: () => (this.#isUrgent ? 0 : pauseMs),
      });
    } catch (error) {
      this.#reportFailure(error);
      throw error;
    }
    if (released === undefined) {
      this.#failedCheckpoints += 1;
      this.#failedAtMs = this.#kernel.monotonicMs();
      return;
    }
    this.#checkpoints += 1;
    this.#log.release(released);
  }

  /**
   * Closes the queue after a last checkpoint, so that the next start has nothing to redo.
   * @throws QueueError as `failure`. The files are closed then too.
   */
  async close(): Promise<void> {
    for (const timer of this.#timers.splice(0)) timer.close();
    this.#isUrgent = true;
    try {
      await this.#transactions.whenIdle();
      await this.#checkpoint?.catch(() => undefined);
      await this.checkpoint();
      await this.#transactions.whenIdle();
    } finally {
      // A segment that is made later would take the place of one of the successor's.
      await this.#log.whenPrepared();
      this.#closeFiles();
    }
  }

  #closeFiles(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const timer of this.#timers.splice(0)) timer.close();
    this.#log.close();
    this.#kernel.close(this.#controlFd);
    this.#lock.close();
  }
}

/** Segments of the log that only consumptions may use. */
const RESERVED_SEGMENTS = 2;

function stagedConsumption(queue: number, message: Message): StagedChange {
  const { number } = message;
  return {
    operation: OPERATION.consume,
    queue,
    number,
    id: '',
    idBytes: 0,
    body: NOTHING,
    position: 0,
    message,
    definition: undefined,
  };
}
