import { assert, isMutexHeld, QueueError } from '../../common/platform/errors.js';
import type { Kernel, Registration } from '../../common/platform/kernel.js';
import { LockOwners, lockWord } from '../index/entry-lock.js';
import { ENTRY, FIELD, NONE, PARKED_BIT, WORKER_SLOTS_WORD } from '../index/layout.js';
import { release } from '../index/lists.js';
import { LOCK } from '../index/lock-bytes.js';
import { markConsumed } from '../index/marks.js';
import type { Body } from '../record/body.js';
import { decodeOrUndefined } from '../record/codec.js';
import { bodyOf, readSlot } from '../record/record.js';
import { keepAside, keptAsideNames } from '../restore/kept-aside.js';
import type { QueueSettings } from '../settings/settings.js';
import { DirectSync, SyncClient } from '../sync/client.js';
import { type Claimed, type ClaimResult, claimMessages } from './claim.js';
import { DeadLetters } from './dead-letters.js';
import type { DeliveryFailure } from './dead-note.js';
import { logEvent, Pair } from './pair.js';
import type { RestoreReport } from './pair-restore.js';
import { parkedIn } from './parked.js';
import { pairPaths } from './paths.js';
import { hostPlatform, type Platform } from './platform.js';
import { ProducerQueue } from './producer-queue.js';
import {
  type Attempt,
  type BuryOutcome,
  type EnqueueOutcome,
  type LockedMessage,
  NOTICE,
  type NoticeState,
  type ParkedUsage,
  type Queue,
  type QueueStats,
  type TakeOptions,
} from './types.js';

/**
 * Milliseconds between two checks whether another process has stored a message. One check is one load of a
 * mapped word.
 */
const ARRIVAL_POLL_INTERVAL_MS = 5;
/**
 * Milliseconds between two calls of the listener without a new message. These calls find the messages whose
 * next attempt is due, and those that dead workers left locked.
 */
const SWEEP_INTERVAL_MS = 100;

/**
 * Pause between two counts of the parked messages: at least this time in milliseconds, and at least this multiple of
 * the time that a count takes, so that counting uses at most 5 % of the time of a worker.
 */
const PARKED_CACHE_MS = 200;
const PARKED_CACHE_FACTOR = 20;
/** Largest value of `ENTRY.firstTry`. */
const MAX_FIRST_TRY = 2 ** 31 - 1;

/**
 * A pair (a data file and its index file) as this worker uses it: its slot, its producer queue, and its
 * position in the list of messages.
 */
class WorkerPair {
  readonly pair: Pair;
  readonly slot: number;
  readonly lock: number;
  readonly producerQueue: ProducerQueue;
  /** Index entry at which the next search for messages that are due starts. */
  cursor = NONE;
  /** Number of index entries visited since the last search that found a message. */
  visitedSinceClaim = 0;
  /** Value of the pair's arrival counter at the last check. */
  seenArrivals = 0;

  /**
   * @param syncSettings undefined for a pair that has no helper.
   * @param helper `may-be-absent`: the pair is synced without a helper while it has none.
   */
  constructor(
    pair: Pair,
    onReady: () => void,
    syncSettings: QueueSettings['sync'] | undefined,
    helper: 'is-there' | 'may-be-absent' = 'is-there',
  ) {
    this.pair = pair;
    const { slot, incarnation } = claimSlot(pair);
    this.slot = slot;
    this.lock = lockWord(slot, incarnation);
    pair.setMutexOwner(slot);
    const createClient =
      syncSettings &&
      (() =>
        new SyncClient(
          pair.directories.directory,
          { slot, incarnation },
          pair.image,
          syncSettings,
          pair.kernel,
        ));
    const sync = createClient && helper === 'is-there' ? createClient() : new DirectSync(pair, createClient);
    this.producerQueue = new ProducerQueue(pair, this.lock, sync, onReady);
  }
}

/**
 * Unlocks an entry of this worker, and counts the attempt.
 * @param queuedAtMs date of the record, in milliseconds since the epoch; undefined when it cannot be read.
 */
function unlockEntry({ image, kernel }: Pair, at: number, attempt: Attempt, queuedAtMs?: number): void {
  if (attempt !== 'none') {
    const nowMs = kernel.wallClockMs();
    const tries = image.get(at + ENTRY.retryCount);
    const answered = tries === 0 ? 0 : image.get(at + ENTRY.answered) & ~PARKED_BIT;
    const answeredNow = answered + (attempt === 'failed' ? 0 : 1);
    if (tries === 0) image.put(at + ENTRY.firstTry, firstTryOf(nowMs, queuedAtMs));
    const word = attempt === 'parked' ? answeredNow | PARKED_BIT : answeredNow;
    if (word !== image.get(at + ENTRY.answered)) image.put(at + ENTRY.answered, word);
    image.put(at + ENTRY.retryCount, tries + 1);
    image.putWide(at + ENTRY.lastRetry, nowMs);
  }
  // Clear the lock last: until then no other process reads the attempts, so none sees a half-made update.
  image.put(at + ENTRY.lock, 0);
}

/** Returns the value of `ENTRY.firstTry`: the time since the date of the record plus 1 ms, or 0 if unknown. */
const firstTryOf = (nowMs: number, queuedAtMs: number | undefined): number =>
  queuedAtMs === undefined ? 0 : Math.min(Math.max(0, nowMs - queuedAtMs) + 1, MAX_FIRST_TRY);

/**
 * Takes a free worker slot. The kernel holds the slot's byte of the lock file for this process until it dies.
 * @throws QueueError `no-worker-slot` when all slots are taken.
 */
function claimSlot(pair: Pair): { slot: number; incarnation: number } {
  const { image, locks } = pair;
  for (let slot = 0; slot < image.geometry.workerSlots; slot += 1) {
    if (locks.tryLock(LOCK.firstSlot + slot)) {
      // Make it unsigned, as tokens carry it: a damaged index may hold any bits here, also those of a
      // negative number.
      return { slot, incarnation: (image.add(WORKER_SLOTS_WORD + slot, 1) + 1) >>> 0 };
    }
  }
  throw new QueueError(
    'no-worker-slot',
    `all ${image.geometry.workerSlots} worker slots of ${pair.directories.directory} are taken`,
  );
}

/**
 * Opens the queue for a worker. The first process to open a pair restores it.
 * @throws QueueError as `Pair.open`, and `no-worker-slot` when all worker slots are taken.
 */
export async function openQueue(
  settings: QueueSettings,
  platform: Platform = hostPlatform,
): Promise<OpenQueue> {
  return new OpenQueue(settings, platform);
}

/**
 * Opens the queue for a command of the operator. It works beside a running gateway: it then uses the sync helpers of
 * the gateway. While a data file has no helper, the command syncs it itself.
 * @throws QueueError as `openQueue`.
 */
export const openQueueForCommand = (settings: QueueSettings, platform: Platform = hostPlatform): OpenQueue =>
  new OpenQueue(settings, platform, 'may-be-absent');

/**
 * The queue in one worker process: all its pairs and its dead-letter queue, open and with a worker slot taken
 * in each.
 */
export class OpenQueue implements Queue {
  /**
   * Reports of the restores that this process did, one per pair that it opened first. The dead letters are
   * last.
   */
  readonly restores: RestoreReport[] = [];
  readonly #kernel: Kernel;
  readonly #pairs: WorkerPair[];
  readonly #timers: Registration[];
  /**
   * The dead-letter queue. It is rarely written, so it has no helper: the process that writes to it also
   * syncs it.
   */
  readonly #dead: WorkerPair;
  readonly #letters: DeadLetters;
  readonly #parkedShare: number;
  #parked: { validUntilMs: number; usage: ParkedUsage } | undefined;
  #nextPair = 0;
  #listener: (() => void) | undefined;
  #isNotifyScheduled = false;
  #lastSweepMs = 0;
  #syncing: Promise<void> | undefined;

  /** Opens the queue; see `openQueue`. */
  constructor(
    settings: QueueSettings,
    platform: Platform,
    helper: 'is-there' | 'may-be-absent' = 'is-there',
  ) {
    const { kernel } = platform;
    this.#kernel = kernel;
    this.#pairs = settings.pairs.map((directories) => {
      const pair = Pair.open(directories, settings, platform);
      this.#recordRestore(pair);
      return new WorkerPair(pair, () => this.#notifyListener(), settings.sync, helper);
    });
    const { directory, entries } = settings.deadLetter;
    const { workerSlots } = settings;
    const dead = Pair.open(
      { directory, indexDirectory: directory },
      { entries, workerSlots, retryCountWithoutIndex: NOTICE.unknown },
      platform,
    );
    this.#recordRestore(dead);
    this.#dead = new WorkerPair(dead, () => undefined, undefined);
    this.#letters = new DeadLetters({
      pair: dead,
      lock: this.#dead.lock,
      producerQueue: this.#dead.producerQueue,
      claim: (limits) => this.#claimDead(limits),
      read: (claimed) => this.#read(0, dead, claimed),
      release: (released) => this.#release(dead, released),
    });
    this.#parkedShare = settings.delivery.parkedPercent / 100;
    this.#timers = [
      kernel.every(ARRIVAL_POLL_INTERVAL_MS, () => this.#poll()),
      kernel.every(settings.indexSyncMs, () => this.#syncIndexes()),
    ];
  }

  #recordRestore(pair: Pair): void {
    if (pair.restore) this.restores.push(pair.restore);
    pair.logRestore();
  }

  enqueue(bodies: readonly Body[], use: 'inbound' | 'internal' = 'internal'): Promise<EnqueueOutcome> {
    if (bodies.length === 0) return Promise.resolve({ outcome: 'confirmed', numbers: [] });
    const leavesReserve = use === 'inbound';
    const first = this.#nextPair++ % this.#pairs.length;
    const answer = (this.#pairs[first] as WorkerPair).producerQueue.enqueue(bodies, leavesReserve);
    return this.#pairs.length === 1 ? answer : this.#enqueueElsewhere(bodies, first, answer, leavesReserve);
  }

  /**
   * Tries to store bodies in the other pairs after one pair has rejected them: another pair may still have
   * free space.
   */
  async #enqueueElsewhere(
    bodies: readonly Body[],
    first: number,
    answer: Promise<EnqueueOutcome>,
    leavesReserve: boolean,
  ): Promise<EnqueueOutcome> {
    let outcome = await answer;
    for (let next = 1; next < this.#pairs.length; next += 1) {
      if (outcome.outcome !== 'rejected' || outcome.reason === 'too-large') break;
      const worker = this.#pairs[(first + next) % this.#pairs.length] as WorkerPair;
      outcome = await worker.producerQueue.enqueue(bodies, leavesReserve);
    }
    return outcome;
  }

  take(options: TakeOptions): LockedMessage[] {
    const taken: LockedMessage[] = [];
    let bytes = 0;
    for (const [pairNumber, worker] of this.#pairs.entries()) {
      if (taken.length >= options.count || bytes >= options.bytes) break;
      const limits = { ...options, count: options.count - taken.length, bytes: options.bytes - bytes };
      const result = this.#claim(worker, limits);
      if (!result) continue;
      worker.cursor = result.cursor;
      worker.visitedSinceClaim = result.claimed.length > 0 ? 0 : worker.visitedSinceClaim + result.visited;
      // A long list is walked in parts. Call the listener until the walk has gone around once, and then stop:
      // otherwise a list of messages that are not due would be walked without end.
      if (worker.visitedSinceClaim >= result.inUse) worker.visitedSinceClaim = 0;
      else if (result.claimed.length === 0) this.#notifyListener();
      for (const claimed of result.claimed) {
        bytes += claimed.sizeBytes;
        const message = this.#read(pairNumber, worker.pair, claimed);
        if (message) taken.push(message);
      }
    }
    return taken;
  }

  /**
   * Locks messages of one pair for delivery. Returns undefined if another process has held the mutex for too
   * long; the next call of `take` tries again.
   */
  #claim({ pair, lock, cursor }: WorkerPair, limits: TakeOptions): ClaimResult | undefined {
    try {
      return claimMessages(pair, new LockOwners(pair.image, pair.locks, lock), lock, cursor, limits);
    } catch (error) {
      if (isMutexHeld(error)) return undefined;
      throw error;
    }
  }

  /**
   * Reads a claimed message. A rotted record is kept aside as a file and never delivered; the result is
   * undefined.
   */
  #read(pairNumber: number, pair: Pair, claimed: Claimed): LockedMessage | undefined {
    const { entry, offset, number, retryCount, lastRetryMs } = claimed;
    const found = readSlot(pair.data, pair.key, offset);
    const body =
      found.state === 'valid' && found.header.number === number
        ? decodeOrUndefined(found.header.type, bodyOf(pair.data, found.header))
        : undefined;
    if (found.state === 'valid' && body !== undefined) {
      const queuedAtMs = found.header.dateMs;
      const at = pair.image.entryWord(entry);
      const firstTry = retryCount === 0 ? 0 : pair.image.get(at + ENTRY.firstTry);
      const answered = retryCount === 0 ? 0 : pair.image.get(at + ENTRY.answered) & ~PARKED_BIT;
      return {
        pair: pairNumber,
        entry,
        number: BigInt(number),
        queueId: pair.queueId,
        body,
        queuedAtMs,
        retryCount,
        lastRetryMs,
        firstRetryMs: firstTry === 0 ? 0 : queuedAtMs + firstTry - 1,
        answeredCount: answered,
      };
    }
    const lengthBytes = Math.min(claimed.sizeBytes, pair.maxRecordBytes);
    const damage = { offset, number, lengthBytes, what: 'data' as const };
    try {
      keepAside(pair.kernel, pairPaths(pair.directories).keptAside, pair.data, damage);
    } catch (error) {
      // The disk may be full. Leave the record in the queue, so that its only copy is not lost; a later walk
      // tries again.
      logEvent(this.#kernel, 'keep-aside-failed', { error: (error as Error).message });
      unlockEntry(pair, pair.image.entryWord(entry), 'failed');
      return undefined;
    }
    this.#release(pair, [entry]);
    return undefined;
  }

  consume(messages: readonly LockedMessage[]): void {
    for (const [pairNumber, worker] of this.#pairs.entries()) {
      const mine = messages.filter(({ pair }) => pair === pairNumber);
      for (const message of mine) this.#lockedEntry(message);
      const entries = mine.map(({ entry }) => entry);
      if (entries.length > 0) this.#release(worker.pair, entries);
    }
  }

  /**
   * Returns the first word of a message's index entry. It asserts that this worker still holds the lock: after
   * the message was given back, the entry may belong to another message, which would be lost.
   */
  #lockedEntry({ pair, entry, number }: LockedMessage): { pair: Pair; at: number } {
    const worker = this.#pairs[pair] as WorkerPair;
    const { image } = worker.pair;
    const at = image.entryWord(entry);
    const isLocked =
      image.getWide(at + ENTRY.number) === Number(number) && image.get(at + ENTRY.lock) === worker.lock;
    assert(isLocked, 'only a message that this worker has locked is consumed or unlocked');
    return { pair: worker.pair, at };
  }

  /**
   * Marks messages as consumed and releases their entries. A message is consumed from its mark on; the
   * release only frees the space.
   */
  #release(pair: Pair, entries: readonly number[]): void {
    const { image, key } = pair;
    for (const entry of entries) {
      const at = image.entryWord(entry);
      markConsumed(image, key, image.getWide(at + ENTRY.offset), image.getWide(at + ENTRY.number));
    }
    pair.withMutexEventually(() => {
      for (const entry of entries) release(image, entry);
    });
  }

  unlock(messages: readonly LockedMessage[], attempt: Attempt): void {
    for (const message of messages) {
      const { pair, at } = this.#lockedEntry(message);
      unlockEntry(pair, at, attempt, message.queuedAtMs);
    }
  }

  async bury(message: LockedMessage, failure: DeliveryFailure): Promise<BuryOutcome> {
    const outcome = await this.#letters.store(message, failure);
    // Consume only now: the letter is on the disk, so a crash in between leaves the message twice, never lost.
    if (outcome === 'buried') this.consume([message]);
    return outcome;
  }

  /** Locks dead letters for delivery or clean-up from where the last walk of the list ended. */
  #claimDead(limits: TakeOptions): ClaimResult | undefined {
    const result = this.#claim(this.#dead, limits);
    if (result !== undefined) this.#dead.cursor = result.cursor;
    return result;
  }

  takeUnnoticed(count: number): LockedMessage[] {
    return this.#letters.takeUnnoticed(count);
  }

  noticed(letters: readonly LockedMessage[], state: NoticeState): void {
    this.#letters.noticed(letters, state);
  }

  /** Locks dead letters by number; see `DeadLetters.takeWanted`. */
  takeDead(wanted: (number: number) => boolean, count: number): LockedMessage[] {
    return this.#letters.takeWanted(wanted, count);
  }

  /** Removes locked dead letters. Without `syncDead` a power cut may bring them back. */
  removeDead(letters: readonly LockedMessage[]): void {
    this.#letters.remove(letters);
  }

  syncDead(): Promise<void> {
    return this.#letters.syncIndex();
  }

  parked(): ParkedUsage {
    const nowMs = this.#kernel.monotonicMs();
    if (this.#parked !== undefined && nowMs < this.#parked.validUntilMs) return this.#parked.usage;
    const usage = { messages: 0, bytes: 0, isShareFull: false };
    let entries = 0;
    let ringBytes = 0;
    for (const { pair } of this.#pairs) {
      const { image, ring } = pair;
      entries += image.geometry.entries;
      ringBytes += ring.end - ring.start;
      const parked = parkedIn(image);
      usage.messages += parked.messages;
      usage.bytes += parked.bytes;
    }
    usage.isShareFull =
      usage.messages >= entries * this.#parkedShare || usage.bytes >= ringBytes * this.#parkedShare;
    const endMs = this.#kernel.monotonicMs();
    const validMs = Math.max(PARKED_CACHE_MS, PARKED_CACHE_FACTOR * (endMs - nowMs));
    this.#parked = { validUntilMs: endMs + validMs, usage };
    return usage;
  }

  onArrival(listener: () => void): void {
    this.#listener = listener;
    this.#notifyListener();
  }

  /** Calls the listener in a later turn of the event loop. Calls before that turn are combined. */
  #notifyListener(): void {
    if (this.#isNotifyScheduled || !this.#listener) return;
    this.#isNotifyScheduled = true;
    this.#kernel.defer(() => {
      this.#isNotifyScheduled = false;
      this.#listener?.();
    });
  }

  /**
   * Calls the listener if a message has arrived, or if the last call was SWEEP_INTERVAL_MS ago: a message may
   * have become due for its next attempt, or a worker may have died with locked messages.
   */
  #poll(): void {
    const nowMs = this.#kernel.monotonicMs();
    let shouldNotify = nowMs - this.#lastSweepMs >= SWEEP_INTERVAL_MS;
    for (const worker of this.#pairs) {
      const arrivals = Atomics.load(worker.pair.image.words, FIELD.arrivals);
      shouldNotify ||= arrivals !== worker.seenArrivals;
      worker.seenArrivals = arrivals;
    }
    if (!shouldNotify) return;
    this.#lastSweepMs = nowMs;
    this.#notifyListener();
  }

  /** Syncs the index of each pair that no other process is syncing. No message waits for it (patent [0018]). */
  #syncIndexes(): Promise<void> {
    if (this.#syncing) return this.#syncing;
    this.#syncing = (async () => {
      for (const { pair } of this.#allPairs()) {
        if (!pair.locks.tryLock(LOCK.indexSync)) continue;
        try {
          await pair.syncIndex();
        } catch (error) {
          // Go on: no confirmation depends on the index. A failed sync costs duplicates after a power cut,
          // but no message.
          logEvent(this.#kernel, 'index-sync-failed', { error: (error as Error).message });
        } finally {
          pair.locks.unlock(LOCK.indexSync);
        }
      }
    })().finally(() => {
      this.#syncing = undefined;
    });
    return this.#syncing;
  }

  #allPairs(): WorkerPair[] {
    return [...this.#pairs, this.#dead];
  }

  stats(): QueueStats {
    const stats: QueueStats = { live: 0, locked: 0, freeBytes: 0, usedBytes: 0, dead: 0 };
    for (const { pair } of this.#pairs) {
      const { image, ring } = pair;
      pair.withMutex(() => {
        const usedBytes = image.getWide(FIELD.usedBytes);
        stats.live += image.get(FIELD.inUse);
        stats.usedBytes += usedBytes;
        stats.freeBytes += ring.end - ring.start - usedBytes;
        for (let entry = image.get(FIELD.head); entry !== NONE; ) {
          const at = image.entryWord(entry);
          if (image.get(at + ENTRY.lock) !== 0) stats.locked += 1;
          entry = image.get(at + ENTRY.next);
        }
      });
    }
    stats.dead = this.#letters.count;
    return stats;
  }

  /**
   * Returns the file names of the damaged records that are kept aside, of all pairs without the dead letters.
   */
  keptAside(): string[] {
    return this.#pairs.flatMap(({ pair }) =>
      keptAsideNames(this.#kernel, pairPaths(pair.directories).keptAside),
    );
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) timer.close();
    this.#listener = undefined;
    await Promise.all(this.#allPairs().map(({ producerQueue }) => producerQueue.whenIdle()));
    await this.#syncing;
    await this.#syncIndexes();
    for (const { producerQueue, pair } of this.#allPairs()) {
      producerQueue.close();
      pair.close();
    }
  }
}
