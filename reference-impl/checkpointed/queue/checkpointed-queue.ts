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
import { type LoggedTransaction, TransactionLog } from './transaction-log.js';
import type { Change, CommitOutcome, Held, RejectionReason, TakenMessage } from './types.js';

/** Time after which a record states that the newest transactions are synced, in milliseconds. */
const NOTE_INTERVAL_MS = 20;
/** Shortest time from a failed checkpoint to one that is made before its time, in milliseconds. */
const RETRY_INTERVAL_MS = 200;
/** Part of the log that is in use when a checkpoint is made before its time. */
const URGENT_LOG_USE = 0.5;
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
  /** How often a queue was locked, and for how long in all, in milliseconds. */
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
  /** Where the search for the next message begins, so that each queue has its turn. */
  #turn = 0;
  #reportFailure: (error: unknown) => void = () => undefined;
  #hasFailed = false;
  #isClosed = false;
  /** Rejects when the queue has failed: its process must end, and its successor recovers. */
  readonly failure: Promise<never>;

  /**
   * Opens a queue, and thereby restores it.
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
    let queue: CheckpointedQueue | undefined;
    try {
      // The lock has made the missing file. Without its name on the disk, a power cut takes all later control records away.
      if (!hasControl) syncDirectory(directory, host.kernel);
      const state = readState(directory, settings, host.kernel);
      if (state.isFromSlots) syncSlots(paths.queues, state.control.queues, host.kernel);
      keepAside(paths.aside, state.damaged, host.kernel);
      queue = new CheckpointedQueue({ directory, settings, run, host, lock, state });
      await queue.#start();
      return queue;
    } catch (error) {
      if (queue === undefined) lock.close();
      else queue.#letGo();
      throw error;
    }
  }

  private constructor(parts: {
    directory: string;
    settings: InstalledSettings;
    run: RunSettings;
    host: Host;
    lock: LockFile;
    state: StoredState;
  }) {
    const { directory, settings, run, host, lock, state } = parts;
    const { kernel } = host;
    const paths = pathsOf(directory);
    this.#kernel = kernel;
    this.#settings = settings;
    this.#run = run;
    this.#lock = lock;
    this.#startedMs = kernel.monotonicMs();
    this.#controlFd = kernel.open(paths.control, 'r+');
    this.#queues = new QueueSet(kernel);
    restoreInto(this.#queues, state.queues);
    this.#generation = state.generation + 1;
    const inForce = state.control;
    const { key } = settings;
    this.#checkpointer = new Checkpointer({
      ...{ host, directory: paths.queues, key, controlFd: this.#controlFd, lock, inForce },
    });
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
      (transactions) => this.#splice(transactions),
      (error) => this.#reportFailure(error),
      kernel,
    );
  }

  /**
   * Puts the restored state in force, with a new generation of the log. Only then old segments may be used again, and the
   * queue is ready.
   */
  async #start(): Promise<void> {
    await this.#runCheckpoint();
    if (this.#failedCheckpoints > 0)
      throw new QueueError('sync-failed', 'the restored state cannot be written: see the line before');
    removePartialSegments(this.#logDirectory, this.#kernel);
    await this.#log.prepareNext();
    this.#timers.push(
      this.#kernel.every(this.#run.checkpointMs, () => void this.checkpoint().catch(() => undefined)),
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

  /** Takes the next message that is ready, of one queue or of any. */
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
   * Commits a transaction. It is durable, and its messages are ready, when the promise resolves.
   * @throws QueueError when nobody knows whether the next recovery will find the transaction.
   */
  async commit({ puts, consumed }: Change): Promise<CommitOutcome> {
    const changes: StagedChange[] = [];
    let bytes = 0;
    for (const { id, body, queue: name } of puts) {
      if (body.length > maxMessageBytes(this.#settings))
        return rejected(
          'too-large',
          `${body.length} bytes, expected at most ${maxMessageBytes(this.#settings)}`,
        );
      if (Buffer.byteLength(id) > MAX_ID_BYTES)
        return rejected(
          'too-large',
          `an id of ${Buffer.byteLength(id)} bytes, expected at most ${MAX_ID_BYTES}`,
        );
      const queue = this.#queues.byName(name ?? defaultQueueOf(id, this.#settings.queues));
      if (queue === undefined) return rejected('no-such-queue', `found no queue ${name}`);
      const message: Message = { id, body, number: 0, next: undefined, previous: undefined };
      changes.push({ operation: OPERATION.put, queue: queue.id, number: 0, id, body, message });
      bytes += memoryOf(message);
    }
    const leaving: Held[] = [];
    const stay = () => {
      for (const { queue, message } of leaving) this.#queues.byId(queue)?.stay(message);
    };
    for (const taken of consumed as readonly Held[]) {
      const { queue, message } = taken;
      if (!this.#queues.byId(queue)?.leave(message)) {
        stay();
        return rejected('not-taken', `message ${taken.id} is not taken any more`);
      }
      leaving.push(taken);
      changes.push({
        operation: OPERATION.consume,
        queue,
        number: message.number,
        id: '',
        body: NOTHING,
        message,
      });
    }
    if (changes.length === 0) return { outcome: 'committed' };
    const result = await this.#commitChanges(changes, bytes);
    if (result.outcome === 'rejected') stay();
    return result;
  }

  /** @param bytes memory that the transaction needs; 0 when it puts nothing. */
  async #commitChanges(changes: readonly StagedChange[], bytes: number): Promise<CommitOutcome> {
    if (bytes > 0 && this.#queues.bytes + this.#reservedBytes + bytes > this.#run.memoryBytes)
      return rejected('full', `${this.#run.memoryBytes} bytes of memory are in use`);
    // Consumptions may use the last segments: they are what makes space again.
    const reserved = bytes > 0 ? RESERVED_SEGMENTS * this.#settings.segmentBytes : 0;
    if (this.#transactions.freeBytes(changes) < reserved) {
      this.#checkpointSoon();
      return rejected('full', 'the log is full until the next checkpoint');
    }
    this.#reservedBytes += bytes;
    try {
      await this.#transactions.commit(changes);
    } catch (error) {
      if (!(error instanceof QueueError && error.code === 'no-space-on-disk')) throw error;
      return rejected('full', error.message);
    } finally {
      this.#reservedBytes -= bytes;
    }
    if (this.#isLogUsed(URGENT_LOG_USE)) this.#checkpointSoon();
    this.#prepareSegment();
    this.#announce();
    return { outcome: 'committed' };
  }

  /** Memory of the messages that are being logged, in bytes. */
  #reservedBytes = 0;

  #splice(transactions: readonly LoggedTransaction<StagedChange>[]): void {
    splice(this.#queues, transactions);
  }

  #announce(): void {
    for (const callback of this.#onReady) callback();
  }

  #isLogUsed(part: number): boolean {
    return this.#transactions.freeBytes() < this.#log.totalBytes * (1 - part);
  }

  /** Makes the next segment ready. A failure comes back when a transaction needs the segment. */
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

  /** The creations that are being logged, by name: a recovery would make a queue of each record. */
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
    const change: StagedChange = { operation, queue, number: 0, id: definition.name, body, definition };
    return (await this.#commitChanges([change], 0)).outcome;
  }

  /** Lists the queues with their figures. */
  queues(): { definition: QueueDefinition; messages: number; inDelivery: number; bytes: number }[] {
    return this.#queues.list().map((queue) => ({
      ...{
        definition: queue.definition,
        messages: queue.length,
        inDelivery: queue.taken.size,
        bytes: queue.bytes,
      },
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

  /** Makes a checkpoint now, or waits for the end of the one that is being made. @throws QueueError as `failure` */
  async checkpoint(): Promise<void> {
    if (this.#checkpoint !== undefined) return this.#checkpoint;
    // Nobody knows which control record is in force: another checkpoint could overwrite slots that it names.
    if (this.#hasFailed) return this.failure;
    if (this.#isCovered()) return;
    this.#checkpoint = this.#runCheckpoint().finally(() => {
      this.#checkpoint = undefined;
    });
    await this.#checkpoint;
  }

  /** Whether the checkpoint in force has everything: no queue has changed, and the log holds nothing to redo. */
  #isCovered(): boolean {
    const redo = this.#transactions.redoPosition;
    const inForce = this.#checkpointer.inForce?.queues ?? [];
    return (
      inForce.every((entry) => entry.redo === redo) && this.#queues.list().every(({ changed }) => !changed)
    );
  }

  /** Makes a checkpoint before its time, but not again and again while they fail. */
  #checkpointSoon(): void {
    if (this.#kernel.monotonicMs() - this.#failedAtMs < RETRY_INTERVAL_MS) return;
    this.checkpoint().catch(() => undefined);
  }

  async #runCheckpoint(): Promise<void> {
    let released: number | undefined;
    try {
      released = await this.#checkpointer.run({
        queues: () => this.#queues.list(),
        redoPosition: () => this.#transactions.redoPosition,
        generation: this.#generation,
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
   * Ends the queue in order: the last checkpoint holds everything, so the next start has nothing to redo.
   * @throws QueueError as `failure`. The files are closed then too.
   */
  async close(): Promise<void> {
    for (const timer of this.#timers.splice(0)) timer.close();
    try {
      await this.#transactions.whenIdle();
      await this.#checkpoint?.catch(() => undefined);
      await this.checkpoint();
      await this.#transactions.whenIdle();
    } finally {
      // A segment that is made later would take the place of one of the successor's.
      await this.#log.whenPrepared();
      this.#letGo();
    }
  }

  #letGo(): void {
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

function rejected(reason: RejectionReason, detail: string): CommitOutcome {
  return { outcome: 'rejected', reason, detail };
}
