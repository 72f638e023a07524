import { constants } from 'node:fs';
import { syncDirectory } from '../../common/platform/directory.js';
import { assert, QueueError } from '../../common/platform/errors.js';
import { FILE_MODE } from '../../common/platform/kernel.js';
import type { LockFile } from '../../common/platform/locks.js';
import type { ChecksumKey } from '../../common/record/checksum.js';
import type { Host, Writer } from '../host.js';
import type { MemoryQueue } from '../memory/memory-queue.js';
import { CONTROL_LOCK, type ControlEntry, type ControlRecord, writeControl } from './control.js';
import { encodeSlot, parseSlotName, slotPath } from './slot.js';

/** What a checkpointer works with. */
export interface CheckpointerOptions {
  host: Host;
  /** Directory of the slots. */
  directory: string;
  key: ChecksumKey;
  /** Open control file. */
  controlFd: number;
  lock: LockFile;
  /** The control record in force; undefined before the first checkpoint of a queue. */
  inForce: ControlRecord | undefined;
}

/** What a checkpoint copies: the queues, and where the log is. */
export interface CheckpointSource {
  /** Returns the local queues at this moment, in order of their numbers. */
  queues: () => readonly MemoryQueue[];
  /** Returns the lowest position of a transaction that is logged and not yet spliced, or the end of the log. */
  redoPosition: () => number;
  generation: number;
  /** Returns how long to pause between two queues, in milliseconds. It is asked again and again: the checkpoint may have become urgent. */
  pauseMs: () => number;
}

/** A slot that a process writes. */
interface SlotBeingWritten {
  queue: MemoryQueue;
  entry: ControlEntry;
  fd: number;
  /** Whether the process has written all of it. */
  written: Promise<boolean>;
}

/** Value of "current queue" after the last local queue. */
const NO_QUEUE = 0;
/** Upper bound of the processes that write at the same time: without `cat`, each takes some 40 MB of memory. */
const MAX_WRITERS = 8;
/** Longest time for which a pause goes on after a checkpoint has become urgent, in milliseconds. */
const PAUSE_STEP_MS = 20;

/** Makes checkpoints, one at a time (claim 1, steps i to vi). */
export class Checkpointer {
  readonly #options: CheckpointerOptions;
  #inForce: ControlRecord | undefined;
  /**
   * Numbers of the queues that may have slot files. Not all are in the control record: a queue may have been deleted before its
   * first checkpoint ended, or before a kill.
   */
  readonly #withSlots: Set<number>;

  constructor(options: CheckpointerOptions) {
    this.#options = options;
    this.#inForce = options.inForce;
    const { host, directory } = options;
    this.#withSlots = new Set(
      host.kernel.list(directory).flatMap((name) => parseSlotName(name)?.queue ?? []),
    );
  }

  /** The control record in force; undefined before the first checkpoint of a queue. */
  get inForce(): ControlRecord | undefined {
    return this.#inForce;
  }

  /**
   * Makes a checkpoint.
   * @returns the position before which no recovery reads the log; undefined when a writer or a sync has failed. The previous
   *   checkpoint then stays in force, and the queues count as changed.
   * @throws QueueError `sync-failed` when it is unknown which control record is in force.
   */
  async run(source: CheckpointSource): Promise<number | undefined> {
    const { lock } = this.#options;
    // (i)
    assert(lock.tryLock(CONTROL_LOCK.checkpoint), 'one checkpoint is made at a time');
    const slots: SlotBeingWritten[] = [];
    try {
      const record = await this.#writeSlots(source, slots);
      if (record === undefined) {
        // What has changed since the checkpoint in force is still to be written.
        for (const { queue } of slots) queue.changed = true;
        return undefined;
      }
      await this.#putInForce(record);
      return Math.min(...record.queues.map(({ redo }) => redo));
    } finally {
      for (const { fd } of slots) this.#options.host.kernel.close(fd);
      lock.unlock(CONTROL_LOCK.checkpoint);
    }
  }

  /** @returns the record that puts the new slots in force; undefined when one of them could not be written. */
  async #writeSlots(source: CheckpointSource, slots: SlotBeingWritten[]): Promise<ControlRecord | undefined> {
    const { host, directory } = this.#options;
    try {
      const queues = await this.#createWriters(source, slots);
      await this.#waitForWriters(slots);
      for (const { fd } of slots) await host.kernel.fdatasync(fd);
      if (slots.length > 0) syncDirectory(directory, host.kernel);
      return { checkpoint: this.#nextNumber, generation: source.generation, queues };
    } catch (error) {
      // Wait before the descriptors are closed: a file that is opened later would get the same number, and a writer that has
      // not started yet would write into it.
      await Promise.all(slots.map(({ written }) => written));
      host.kernel.log(`checkpoint: ${(error as Error).message}; the previous checkpoint stays in force`);
      return undefined;
    }
  }

  /**
   * Steps ii, iii, v and vi: goes through the local queues, and creates a process for each one that has changed. Between
   * two queues, transactions continue, and may create and delete queues. The first queue has the lowest redo position: the log
   * behind it contains each creation and deletion that this loop misses. A transaction over two queues may be in one slot and not
   * in the other: the redo position of each queue says which.
   * @returns the entries of the queues that are there at the end. One that was deleted meanwhile may have a successor of its
   *   name, and a record has room for no more queues than there can be.
   */
  async #createWriters(source: CheckpointSource, slots: SlotBeingWritten[]): Promise<ControlEntry[]> {
    const { kernel } = this.#options.host;
    const entries: ControlEntry[] = [];
    const next = (after: number) => source.queues().find(({ id }) => id > after)?.id ?? NO_QUEUE;
    let currentQueue = next(NO_QUEUE);
    while (currentQueue !== NO_QUEUE) {
      const queue = source.queues().find(({ id }) => id === currentQueue);
      assert(queue !== undefined, 'the current queue is a local queue');
      const old = this.#inForce?.queues.find(({ id }) => id === queue.id);
      if (queue.changed || old === undefined) entries.push(this.#createWriter(queue, old, source, slots));
      // Each transaction before this position is in the slot, or it changes only other queues.
      else entries.push({ ...old, redo: source.redoPosition() });
      await new Promise<void>((resolve) => kernel.defer(resolve));
      if (slots.at(-1)?.queue === queue) await this.#pause(source);
      currentQueue = next(currentQueue);
    }
    const local = new Set(source.queues().map(({ id }) => id));
    return entries.filter(({ id }) => local.has(id));
  }

  /** Pauses after a slot: the disk then has time for the log between the slots. */
  async #pause({ pauseMs }: CheckpointSource): Promise<void> {
    const { kernel } = this.#options.host;
    for (let pausedMs = 0; pausedMs < pauseMs(); pausedMs += PAUSE_STEP_MS)
      await new Promise<void>((resolve) => kernel.after(Math.min(PAUSE_STEP_MS, pauseMs()), () => resolve()));
  }

  #createWriter(
    queue: MemoryQueue,
    old: ControlEntry | undefined,
    { redoPosition, generation }: CheckpointSource,
    slots: SlotBeingWritten[],
  ): ControlEntry {
    const { host, directory, key } = this.#options;
    const { kernel } = host;
    const slot = old?.slot === 0 ? 1 : 0;
    const path = slotPath(directory, queue.id, slot);
    this.#withSlots.add(queue.id);
    // Make a new file: a process of a server that was killed may still write to the old one.
    kernel.remove(path);
    const fd = kernel.open(path, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, FILE_MODE);
    const redo = redoPosition();
    const snapshot = queue.lock.hold(() => queue.snapshot(redo));
    const { definition } = snapshot;
    const entry: ControlEntry = { id: queue.id, slot, checkpoint: this.#nextNumber, redo, definition };
    const pieces = encodeSlot({ key, queue: queue.id, checkpoint: entry.checkpoint }, snapshot, generation);
    const before = slots.at(-MAX_WRITERS)?.written;
    slots.push({ queue, entry, fd, written: feed(() => host.startWriter(fd), pieces, before) });
    return entry;
  }

  get #nextNumber(): number {
    return (this.#inForce?.checkpoint ?? 0) + 1;
  }

  /** Step iv, first half: waits for the created processes. */
  async #waitForWriters(slots: readonly SlotBeingWritten[]): Promise<void> {
    const written = await Promise.all(slots.map((slot) => slot.written));
    if (written.includes(false)) throw new Error('a writer process has failed');
  }

  /** Step iv, second half: marks the checkpoint as complete in the control record. */
  async #putInForce(record: ControlRecord): Promise<void> {
    const { host, controlFd } = this.#options;
    try {
      await writeControl(host.kernel, controlFd, record);
    } catch (cause) {
      // It is unknown whether the record is on the disk. The next checkpoint could overwrite slots that the record names.
      throw new QueueError(
        'sync-failed',
        `the control record cannot be written: ${(cause as Error).message}`,
        { cause },
      );
    }
    this.#inForce = record;
    const gone = new Set(this.#withSlots);
    for (const { id } of record.queues) gone.delete(id);
    this.#removeSlots(gone);
  }

  /**
   * Removes the slots of deleted queues. The removal must be durable before the log drops the deletion: if the control record
   * is lost, every slot counts as a queue, and the deleted queue would return. Such slots can also come from a server that was
   * killed before it removed them, or from a failed checkpoint.
   */
  #removeSlots(gone: ReadonlySet<number>): void {
    if (gone.size === 0) return;
    const { host, directory } = this.#options;
    for (const id of gone)
      for (const slot of [0, 1] as const) host.kernel.remove(slotPath(directory, id, slot));
    try {
      syncDirectory(directory, host.kernel);
    } catch (cause) {
      throw new QueueError('sync-failed', `${directory} cannot be synced: ${(cause as Error).message}`, {
        cause,
      });
    }
    for (const id of gone) this.#withSlots.delete(id);
  }
}

/**
 * Starts a process, and sends it the pieces of a slot.
 * @param before the end of another process. This process starts after it.
 * @returns whether the process has written all pieces
 */
async function feed(
  start: () => Writer,
  pieces: Iterable<Buffer>,
  before: Promise<boolean> | undefined,
): Promise<boolean> {
  if (before !== undefined) await before;
  try {
    const writer = start();
    for (const piece of pieces) await writer.write(piece);
    return await writer.end();
  } catch {
    // The process has died, or the machine has no more processes.
    return false;
  }
}
