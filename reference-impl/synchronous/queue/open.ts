import { LockOwners, lockWord } from '../index/entry-lock.js';
import { ENTRY, FIELD, NONE, WORKER_SLOTS_WORD } from '../index/layout.js';
import { release } from '../index/lists.js';
import { markConsumed } from '../index/marks.js';
import { assert, isMutexHeld, QueueError } from '../platform/errors.js';
import type { Kernel, Registration } from '../platform/kernel.js';
import { LOCK } from '../platform/locks.js';
import type { Body } from '../record/body.js';
import { decodeBody } from '../record/codec.js';
import { bodyOf, readSlot } from '../record/record.js';
import { keepAside, keptAsideNames } from '../restore/kept-aside.js';
import type { QueueSettings } from '../settings/settings.js';
import { DirectSync, SyncClient } from '../sync/client.js';
import { type Claimed, type ClaimResult, claimMessages } from './claim.js';
import { logEvent, Pair } from './pair.js';
import type { RestoreReport } from './pair-restore.js';
import { pairPaths } from './paths.js';
import { hostPlatform, type Platform } from './platform.js';
import { ProducerQueue } from './producer-queue.js';
import type { EnqueueOutcome, LockedMessage, Queue, QueueStats, TakeOptions } from './types.js';

/** How often a worker looks whether others have stored something: a load of a mapped word. */
const ARRIVAL_POLL_INTERVAL_MS = 5;
/** How often it looks without a sign: for messages whose next try is due, and for what dead workers left. */
const SWEEP_INTERVAL_MS = 100;

/** A walk with this takes nothing and only cleans up. */
const LEFTOVERS_ONLY: TakeOptions = { count: 1, bytes: 0, due: () => false };

/** A pair as one worker uses it: its slot, its way in, its place in the list. */
class WorkerPair {
  readonly pair: Pair;
  readonly slot: number;
  readonly lock: number;
  readonly producerQueue: ProducerQueue;
  cursor = NONE;
  /** Entries looked at since the last that could be taken. */
  visitedSinceClaim = 0;
  seenArrivals = 0;

  constructor(pair: Pair, onReady: () => void, syncSettings: QueueSettings['sync'] | undefined) {
    this.pair = pair;
    const { slot, incarnation } = claimSlot(pair);
    this.slot = slot;
    this.lock = lockWord(slot, incarnation);
    pair.setMutexOwner(slot);
    const sync = syncSettings
      ? new SyncClient(
          pair.directories.directory,
          { slot, incarnation },
          pair.image,
          syncSettings,
          pair.kernel,
        )
      : new DirectSync(pair);
    this.producerQueue = new ProducerQueue(pair, this.lock, sync, onReady);
  }
}

/** Unlocks an entry of ours; `tried` counts one more try. The lock last: before that nobody else reads the retries. */
function unlockEntry({ image, kernel }: Pair, at: number, tried: boolean): void {
  if (tried) {
    image.put(at + ENTRY.retryCount, image.get(at + ENTRY.retryCount) + 1);
    image.putWide(at + ENTRY.lastRetry, kernel.wallClockMs());
  }
  image.put(at + ENTRY.lock, 0);
}

/** Takes a free worker slot: the kernel holds its byte for us until we die. */
function claimSlot(pair: Pair): { slot: number; incarnation: number } {
  const { image, locks } = pair;
  for (let slot = 0; slot < image.geometry.workerSlots; slot += 1) {
    if (locks.tryLock(LOCK.firstSlot + slot)) {
      // Unsigned, as tokens carry it: a damaged index may have left any bits there.
      return { slot, incarnation: (image.add(WORKER_SLOTS_WORD + slot, 1) + 1) >>> 0 };
    }
  }
  throw new QueueError(
    'no-worker-slot',
    `all ${image.geometry.workerSlots} worker slots of ${pair.directories.directory} are taken`,
  );
}

/** Opens the queue for a worker; the first to do so restores it. @throws QueueError */
export async function openQueue(
  settings: QueueSettings,
  platform: Platform = hostPlatform,
): Promise<OpenQueue> {
  return new OpenQueue(settings, platform);
}

export class OpenQueue implements Queue {
  /** What restores this process did, one for each pair that it was the first to open, the dead letters' last. */
  readonly restores: RestoreReport[] = [];
  readonly #kernel: Kernel;
  readonly #pairs: WorkerPair[];
  readonly #timers: Registration[];
  /** The secondary queue. It is written seldom, so the process that has something for it syncs it itself. */
  readonly #dead: WorkerPair;
  #nextPair = 0;
  #listener: (() => void) | undefined;
  #isNotifyScheduled = false;
  #lastSweepMs = 0;
  #syncing: Promise<void> | undefined;

  constructor(settings: QueueSettings, platform: Platform) {
    const { kernel } = platform;
    this.#kernel = kernel;
    this.#pairs = settings.pairs.map((directories) => {
      const pair = Pair.open(directories, settings, platform);
      this.#recordRestore(pair);
      return new WorkerPair(pair, () => this.#notifyListener(), settings.sync);
    });
    const { directory, entries } = settings.deadLetter;
    const { workerSlots } = settings;
    const dead = Pair.open({ directory, indexDirectory: directory }, { entries, workerSlots }, platform);
    this.#recordRestore(dead);
    this.#dead = new WorkerPair(dead, () => undefined, undefined);
    this.#timers = [
      kernel.every(ARRIVAL_POLL_INTERVAL_MS, () => this.#poll()),
      kernel.every(settings.indexSyncMs, () => this.#syncIndexes()),
    ];
  }

  #recordRestore(pair: Pair): void {
    if (pair.restore) this.restores.push(pair.restore);
    pair.logRestore();
  }

  enqueue(bodies: readonly Body[]): Promise<EnqueueOutcome> {
    if (bodies.length === 0) return Promise.resolve({ outcome: 'confirmed', numbers: [] });
    const first = this.#nextPair++ % this.#pairs.length;
    const answer = (this.#pairs[first] as WorkerPair).producerQueue.enqueue(bodies);
    return this.#pairs.length === 1 ? answer : this.#enqueueElsewhere(bodies, first, answer);
  }

  /** A pair that is full is no reason to refuse what another has room for. */
  async #enqueueElsewhere(
    bodies: readonly Body[],
    first: number,
    answer: Promise<EnqueueOutcome>,
  ): Promise<EnqueueOutcome> {
    let outcome = await answer;
    for (let next = 1; next < this.#pairs.length; next += 1) {
      if (outcome.outcome !== 'rejected' || outcome.reason === 'too-large') break;
      const worker = this.#pairs[(first + next) % this.#pairs.length] as WorkerPair;
      outcome = await worker.producerQueue.enqueue(bodies);
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
      // A long list is walked in pieces, once around for each occasion.
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

  /** undefined: another process has held the mutex for too long; the next sweep tries again. */
  #claim({ pair, lock, cursor }: WorkerPair, limits: TakeOptions): ClaimResult | undefined {
    try {
      return claimMessages(pair, new LockOwners(pair.image, pair.locks, lock), lock, cursor, limits);
    } catch (error) {
      if (isMutexHeld(error)) return undefined;
      throw error;
    }
  }

  /** Reads a claimed message; one that has rotted is kept aside and never delivered. */
  #read(pairNumber: number, pair: Pair, claimed: Claimed): LockedMessage | undefined {
    const { entry, offset, number, retryCount, lastRetryMs } = claimed;
    const found = readSlot(pair.data, pair.key, offset);
    if (found.state === 'valid' && found.header.number === number) {
      const body = decodeBody(found.header.type, bodyOf(pair.data, found.header));
      const queuedAtMs = found.header.dateMs;
      return { pair: pairNumber, entry, number: BigInt(number), body, queuedAtMs, retryCount, lastRetryMs };
    }
    const damage = { offset, number, lengthBytes: claimed.sizeBytes, what: 'data' as const };
    try {
      keepAside(pair.kernel, pairPaths(pair.directories).keptAside, pair.data, damage);
    } catch (error) {
      // No room on the disk, perhaps: it stays where it is, and is looked at again later.
      logEvent(this.#kernel, 'keep-aside-failed', { error: (error as Error).message });
      unlockEntry(pair, pair.image.entryWord(entry), true);
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

  /** First word of a message's entry. A message that was given back already is a mistake that would cost another one. */
  #lockedEntry({ pair, entry, number }: LockedMessage): { pair: Pair; at: number } {
    const worker = this.#pairs[pair] as WorkerPair;
    const { image } = worker.pair;
    const at = image.entryWord(entry);
    const isLocked =
      image.getWide(at + ENTRY.number) === Number(number) && image.get(at + ENTRY.lock) === worker.lock;
    assert(isLocked, 'only a message that this worker has locked is consumed or unlocked');
    return { pair: worker.pair, at };
  }

  /** The mark is the moment of consumption; releasing the entry only makes room. */
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

  unlock(messages: readonly LockedMessage[], tried: boolean): void {
    for (const message of messages) {
      const { pair, at } = this.#lockedEntry(message);
      unlockEntry(pair, at, tried);
    }
  }

  async bury(message: LockedMessage, reason: string): Promise<boolean> {
    // Nobody takes from there, and so nobody else comes upon the entries of workers that died in here.
    this.#dead.cursor = this.#claim(this.#dead, LEFTOVERS_ONLY)?.cursor ?? NONE;
    const outcome = await this.#dead.producerQueue.enqueue([message.body]);
    if (outcome.outcome !== 'confirmed') {
      this.unlock([message], true);
      return false;
    }
    this.consume([message]);
    logEvent(this.#kernel, 'dead-letter', {
      number: `${message.number}`,
      as: `${outcome.numbers[0]}`,
      reason,
    });
    return true;
  }

  onArrival(listener: () => void): void {
    this.#listener = listener;
    this.#notifyListener();
  }

  #notifyListener(): void {
    if (this.#isNotifyScheduled || !this.#listener) return;
    this.#isNotifyScheduled = true;
    this.#kernel.defer(() => {
      this.#isNotifyScheduled = false;
      this.#listener?.();
    });
  }

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

  /** One worker at a time syncs the index; nobody waits for it [0018]. */
  #syncIndexes(): Promise<void> {
    if (this.#syncing) return this.#syncing;
    this.#syncing = (async () => {
      for (const { pair } of this.#allPairs()) {
        if (!pair.locks.tryLock(LOCK.indexSync)) continue;
        try {
          await pair.syncIndex();
        } catch (error) {
          // Nobody waits for the index: a failed sync means more duplicates after a power cut, and no loss.
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
    stats.dead = this.#dead.pair.image.get(FIELD.inUse);
    return stats;
  }

  /** Names of records that are kept aside, in all pairs. */
  keptAside(): string[] {
    return this.#pairs.flatMap(({ pair }) =>
      keptAsideNames(this.#kernel, pairPaths(pair.directories).keptAside),
    );
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) timer.close();
    this.#listener = undefined;
    await Promise.all(this.#allPairs().map(({ producerQueue: lane }) => lane.whenIdle()));
    await this.#syncing;
    await this.#syncIndexes();
    for (const { producerQueue: lane, pair } of this.#allPairs()) {
      lane.close();
      pair.close();
    }
  }
}
