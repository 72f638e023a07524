import { lockWord, Owners } from '../index/entry-lock.js';
import { ENTRY, FIELD, NONE, SLOTS_WORD } from '../index/layout.js';
import { release } from '../index/lists.js';
import { markConsumed } from '../index/marks.js';
import { assert, isMutexHeld, QueueError } from '../platform/errors.js';
import type { Kernel, Registered } from '../platform/kernel.js';
import { LOCK } from '../platform/locks.js';
import type { Body } from '../record/body.js';
import { decodeBody } from '../record/codec.js';
import { bodyOf, readSlot } from '../record/record.js';
import { keepAside, keptAsideNames } from '../restore/kept-aside.js';
import type { QueueSettings } from '../settings/settings.js';
import { DirectSync, SyncClient } from '../sync/client.js';
import { type Ground, machine } from './ground.js';
import { Lane } from './lane.js';
import { announce, Pair } from './pair.js';
import type { RestoreReport } from './pair-restore.js';
import { pairPlaces } from './places.js';
import type { EnqueueOutcome, Locked, Queue, QueueStats, TakeOptions } from './types.js';
import { type Claimed, type Walk, walk } from './walk.js';

/** How often a worker looks whether others have stored something: a load of a mapped word. */
const ARRIVAL_POLL_MS = 5;
/** How often it looks without a sign: for messages whose next try is due, and for what dead workers left. */
const SWEEP_MS = 100;

/** A walk with this takes nothing and only cleans up. */
const LEFTOVERS_ONLY: TakeOptions = { count: 1, bytes: 0, due: () => false };

/** A pair as one worker uses it: its slot, its way in, its place in the list. */
class WorkerPair {
  readonly pair: Pair;
  readonly slot: number;
  readonly lock: number;
  readonly lane: Lane;
  cursor = NONE;
  /** Entries looked at since the last that could be taken. */
  barren = 0;
  seenArrivals = 0;

  constructor(pair: Pair, onReady: () => void, helped: QueueSettings['sync'] | undefined) {
    this.pair = pair;
    const { slot, incarnation } = claimSlot(pair);
    this.slot = slot;
    this.lock = lockWord(slot, incarnation);
    pair.signAs(slot);
    const sync = helped
      ? new SyncClient(pair.directories.directory, { slot, incarnation }, pair.image, helped, pair.kernel)
      : new DirectSync(pair);
    this.lane = new Lane(pair, this.lock, sync, onReady);
  }
}

/** Unlocks an entry of ours; `tried` counts one more try. The lock last: before that nobody else reads the retries. */
function giveBack({ image, kernel }: Pair, at: number, tried: boolean): void {
  if (tried) {
    image.put(at + ENTRY.retryCount, image.get(at + ENTRY.retryCount) + 1);
    image.putWide(at + ENTRY.lastRetry, kernel.dateMs());
  }
  image.put(at + ENTRY.lock, 0);
}

/** Takes a free worker slot: the kernel holds its byte for us until we die. */
function claimSlot(pair: Pair): { slot: number; incarnation: number } {
  const { image, locks } = pair;
  for (let slot = 0; slot < image.geometry.workerSlots; slot += 1) {
    if (locks.tryLock(LOCK.firstSlot + slot)) {
      // Unsigned, as tokens carry it: a damaged index may have left any bits there.
      return { slot, incarnation: (image.add(SLOTS_WORD + slot, 1) + 1) >>> 0 };
    }
  }
  throw new QueueError(
    'no-worker-slot',
    `all ${image.geometry.workerSlots} worker slots of ${pair.directories.directory} are taken`,
  );
}

/** Opens the queue for a worker; the first to do so restores it. @throws QueueError */
export async function openQueue(settings: QueueSettings, ground: Ground = machine): Promise<OpenQueue> {
  return new OpenQueue(settings, ground);
}

export class OpenQueue implements Queue {
  /** What restores this process did, one for each pair that it was the first to open, the dead letters' last. */
  readonly restores: RestoreReport[] = [];
  readonly #kernel: Kernel;
  readonly #pairs: WorkerPair[];
  readonly #timers: Registered[];
  /** The secondary queue. It is written seldom, so the process that has something for it syncs it itself. */
  readonly #dead: WorkerPair;
  #turn = 0;
  #listener: (() => void) | undefined;
  #called = false;
  #sweptAtMs = 0;
  #syncing: Promise<void> | undefined;

  constructor(settings: QueueSettings, ground: Ground) {
    const { kernel } = ground;
    this.#kernel = kernel;
    this.#pairs = settings.pairs.map((directories) => {
      const pair = Pair.open(directories, settings, ground);
      this.#noteRestore(pair);
      return new WorkerPair(pair, () => this.#call(), settings.sync);
    });
    const { directory, entries } = settings.deadLetter;
    const { workerSlots } = settings;
    const dead = Pair.open({ directory, indexDirectory: directory }, { entries, workerSlots }, ground);
    this.#noteRestore(dead);
    this.#dead = new WorkerPair(dead, () => undefined, undefined);
    this.#timers = [
      kernel.every(ARRIVAL_POLL_MS, () => this.#poll()),
      kernel.every(settings.indexSyncMs, () => this.#syncIndexes()),
    ];
  }

  #noteRestore(pair: Pair): void {
    if (pair.restore) this.restores.push(pair.restore);
    pair.announceRestore();
  }

  enqueue(bodies: readonly Body[]): Promise<EnqueueOutcome> {
    if (bodies.length === 0) return Promise.resolve({ outcome: 'confirmed', numbers: [] });
    const first = this.#turn++ % this.#pairs.length;
    const answer = (this.#pairs[first] as WorkerPair).lane.enqueue(bodies);
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
      outcome = await worker.lane.enqueue(bodies);
    }
    return outcome;
  }

  take(options: TakeOptions): Locked[] {
    const taken: Locked[] = [];
    let bytes = 0;
    for (const [pairNumber, worker] of this.#pairs.entries()) {
      if (taken.length >= options.count || bytes >= options.bytes) break;
      const wish = { ...options, count: options.count - taken.length, bytes: options.bytes - bytes };
      const result = this.#walk(worker, wish);
      if (!result) continue;
      worker.cursor = result.cursor;
      worker.barren = result.claimed.length > 0 ? 0 : worker.barren + result.looked;
      // A long list is walked in pieces, once around for each occasion.
      if (worker.barren >= result.inUse) worker.barren = 0;
      else if (result.claimed.length === 0) this.#call();
      for (const claimed of result.claimed) {
        bytes += claimed.sizeBytes;
        const message = this.#read(pairNumber, worker.pair, claimed);
        if (message) taken.push(message);
      }
    }
    return taken;
  }

  /** undefined: another process has held the mutex for too long; the next sweep tries again. */
  #walk({ pair, lock, cursor }: WorkerPair, wish: TakeOptions): Walk | undefined {
    try {
      return walk(pair, new Owners(pair.image, pair.locks, lock), lock, cursor, wish);
    } catch (error) {
      if (isMutexHeld(error)) return undefined;
      throw error;
    }
  }

  /** Reads a claimed message; one that has rotted is kept aside and never delivered. */
  #read(pairNumber: number, pair: Pair, claimed: Claimed): Locked | undefined {
    const { entry, offset, number, retryCount, lastRetryMs } = claimed;
    const found = readSlot(pair.data, pair.key, offset);
    if (found.state === 'valid' && found.header.number === number) {
      const body = decodeBody(found.header.type, bodyOf(pair.data, found.header));
      const queuedAtMs = found.header.dateMs;
      return { pair: pairNumber, entry, number: BigInt(number), body, queuedAtMs, retryCount, lastRetryMs };
    }
    const damage = { offset, number, lengthBytes: claimed.sizeBytes, what: 'data' as const };
    try {
      keepAside(pair.kernel, pairPlaces(pair.directories).keptAside, pair.data, damage);
    } catch (error) {
      // No room on the disk, perhaps: it stays where it is, and is looked at again later.
      announce(this.#kernel, 'keep-aside-failed', { error: (error as Error).message });
      giveBack(pair, pair.image.entryWord(entry), true);
      return undefined;
    }
    this.#release(pair, [entry]);
    return undefined;
  }

  consume(messages: readonly Locked[]): void {
    for (const [pairNumber, worker] of this.#pairs.entries()) {
      const mine = messages.filter(({ pair }) => pair === pairNumber);
      for (const message of mine) this.#wordOf(message);
      const entries = mine.map(({ entry }) => entry);
      if (entries.length > 0) this.#release(worker.pair, entries);
    }
  }

  /** First word of a message's entry. A message that was given back already is a mistake that would cost another one. */
  #wordOf({ pair, entry, number }: Locked): { pair: Pair; at: number } {
    const worker = this.#pairs[pair] as WorkerPair;
    const { image } = worker.pair;
    const at = image.entryWord(entry);
    const held =
      image.getWide(at + ENTRY.number) === Number(number) && image.get(at + ENTRY.lock) === worker.lock;
    assert(held, 'only a message that this worker has locked is consumed or unlocked');
    return { pair: worker.pair, at };
  }

  /** The mark is the moment of consumption; releasing the entry only makes room. */
  #release(pair: Pair, entries: readonly number[]): void {
    const { image, key } = pair;
    for (const entry of entries) {
      const at = image.entryWord(entry);
      markConsumed(image, key, image.getWide(at + ENTRY.offset), image.getWide(at + ENTRY.number));
    }
    pair.withMutexAtLast(() => {
      for (const entry of entries) release(image, entry);
    });
  }

  unlock(messages: readonly Locked[], tried: boolean): void {
    for (const message of messages) {
      const { pair, at } = this.#wordOf(message);
      giveBack(pair, at, tried);
    }
  }

  async bury(message: Locked, reason: string): Promise<boolean> {
    // Nobody takes from there, and so nobody else comes upon the entries of workers that died in here.
    this.#dead.cursor = this.#walk(this.#dead, LEFTOVERS_ONLY)?.cursor ?? NONE;
    const outcome = await this.#dead.lane.enqueue([message.body]);
    if (outcome.outcome !== 'confirmed') {
      this.unlock([message], true);
      return false;
    }
    this.consume([message]);
    announce(this.#kernel, 'dead-letter', {
      number: `${message.number}`,
      as: `${outcome.numbers[0]}`,
      reason,
    });
    return true;
  }

  onArrival(listener: () => void): void {
    this.#listener = listener;
    this.#call();
  }

  #call(): void {
    if (this.#called || !this.#listener) return;
    this.#called = true;
    this.#kernel.soon(() => {
      this.#called = false;
      this.#listener?.();
    });
  }

  #poll(): void {
    const nowMs = this.#kernel.monotonicMs();
    let news = nowMs - this.#sweptAtMs >= SWEEP_MS;
    for (const worker of this.#pairs) {
      const arrivals = Atomics.load(worker.pair.image.words, FIELD.arrivals);
      news ||= arrivals !== worker.seenArrivals;
      worker.seenArrivals = arrivals;
    }
    if (!news) return;
    this.#sweptAtMs = nowMs;
    this.#call();
  }

  /** One worker at a time syncs the index; nobody waits for it [0018]. */
  #syncIndexes(): Promise<void> {
    if (this.#syncing) return this.#syncing;
    this.#syncing = (async () => {
      for (const { pair } of this.#open()) {
        if (!pair.locks.tryLock(LOCK.indexSync)) continue;
        try {
          await pair.syncIndex();
        } catch (error) {
          // Nobody waits for the index: a failed sync means more duplicates after a power cut, and no loss.
          announce(this.#kernel, 'index-sync-failed', { error: (error as Error).message });
        } finally {
          pair.locks.unlock(LOCK.indexSync);
        }
      }
    })().finally(() => {
      this.#syncing = undefined;
    });
    return this.#syncing;
  }

  #open(): WorkerPair[] {
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
      keptAsideNames(this.#kernel, pairPlaces(pair.directories).keptAside),
    );
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) timer.close();
    this.#listener = undefined;
    await Promise.all(this.#open().map(({ lane }) => lane.idle()));
    await this.#syncing;
    await this.#syncIndexes();
    for (const { lane, pair } of this.#open()) {
      lane.close();
      pair.close();
    }
  }
}
