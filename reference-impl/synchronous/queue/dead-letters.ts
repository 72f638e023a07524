import { assert, isMutexHeld } from '../../common/platform/errors.js';
import { ENTRY, FIELD, NONE, STATUS } from '../index/layout.js';
import { isConsumed } from '../index/marks.js';
import type { Body } from '../record/body.js';
import { decodeOrUndefined } from '../record/codec.js';
import { bodyOf, readSlot, recordBytes } from '../record/record.js';
import type { Claimed, ClaimResult } from './claim.js';
import {
  type DeliveryFailure,
  encodeNote,
  escapeText,
  isSameMessage,
  noteOf,
  originOf,
} from './dead-note.js';
import { logEvent, type Pair } from './pair.js';
import type { ProducerQueue } from './producer-queue.js';
import { type BuryOutcome, type LockedMessage, NOTICE, type NoticeState, type TakeOptions } from './types.js';

/** Limits with which `claimMessages` takes no message and only cleans up after dead workers. */
const LEFTOVERS_ONLY: TakeOptions = { count: 1, bytes: 0, due: () => false };
/** Largest sum of the records that one call locks, in bytes. */
const MAX_TAKEN_BYTES = 8 * 2 ** 20;
/**
 * Milliseconds after which the list is walked again without a new letter: a worker may have died while it had
 * letters locked.
 */
const RESWEEP_INTERVAL_MS = 5000;
/** Milliseconds between two log lines that say that the dead-letter queue is full. */
const FULL_WARNING_INTERVAL_MS = 60_000;

/** The operations of a worker on the pair of the dead-letter queue. */
export interface DeadPair {
  pair: Pair;
  /** The value by which the worker locks index entries. */
  lock: number;
  producerQueue: ProducerQueue;
  /** Locks letters from where the last walk ended; undefined when the mutex is held for too long. */
  claim(limits: TakeOptions): ClaimResult | undefined;
  /** Reads a locked letter. A damaged one is kept aside; the result is then undefined. */
  read(claimed: Claimed): LockedMessage | undefined;
  /** Marks letters as consumed and frees their entries. */
  release(entries: readonly number[]): void;
}

/**
 * The dead-letter queue as a worker uses it. Every change of a letter needs its entry lock, which one process
 * holds at a time, so workers and operator commands may run at the same time.
 */
export class DeadLetters {
  readonly #dead: DeadPair;
  /** Entry and number of each letter that was ever seen, by the origin in its note. */
  readonly #byOrigin = new Map<string, { entry: number; number: number }>();
  /** All letters with lower numbers are in `#byOrigin`. */
  #seenNumber = 0;
  /** Value of the arrival counter before the last complete walk that found no letter without a notice. */
  #sweptArrivals: number | undefined;
  #sweptMs = 0;
  #arrivalsAtStart = 0;
  #visited = 0;
  #lastWarningMs: number | undefined;

  constructor(dead: DeadPair) {
    this.#dead = dead;
  }

  /** Number of letters, including those that are being stored. */
  get count(): number {
    return this.#dead.pair.image.get(FIELD.inUse);
  }

  /**
   * Stores a message as a dead letter, unless it is one already. The letter is on the disk when the result is
   * `buried`. The caller then consumes the message in the main queue.
   */
  async store(message: LockedMessage, failure: DeliveryFailure): Promise<BuryOutcome> {
    // Clean up first: the entries of workers that died while they stored a letter would take up room.
    if (this.#dead.claim(LEFTOVERS_ONLY) === undefined) return 'failed';
    const { kernel, maxRecordBytes } = this.#dead.pair;
    const origin = originOf(message);
    const there = this.#find(origin, message.body);
    if (there === 'mutex-held') return 'failed';
    if (there !== undefined) {
      // The caller consumes the message now. Without this line nothing would show where it is.
      logEvent(kernel, 'already-dead', { number: `${message.number}`, as: `${there}` });
      return 'buried';
    }
    const nowMs = kernel.wallClockMs();
    const note = encodeNote({
      ...failure,
      attempts: message.retryCount + 1,
      queuedAtMs: message.queuedAtMs,
      firstAttemptMs: message.retryCount === 0 ? nowMs : message.firstRetryMs,
      lastAttemptMs: nowMs,
      origin,
    });
    const noted = { ...message.body, note };
    // A dead-letter queue of version 0.1.0 has no room for the note of a largest message. Keep the message.
    const body = recordBytes(noted) <= maxRecordBytes ? noted : message.body;
    const outcome = await this.#dead.producerQueue.enqueue([body]);
    if (outcome.outcome === 'confirmed') {
      const { reason, replies } = failure;
      logEvent(kernel, 'dead-letter', {
        number: `${message.number}`,
        as: `${outcome.numbers[0]}`,
        reason,
        reply: escapeText(replies[0] ?? ''),
      });
      this.#warnAgainLater();
      return 'buried';
    }
    if (outcome.outcome === 'indefinite' || outcome.reason === 'mutex-held') return 'failed';
    this.#warnFull();
    return 'full';
  }

  #warnFull(): void {
    const { pair } = this.#dead;
    const nowMs = pair.kernel.monotonicMs();
    if (this.#lastWarningMs !== undefined && nowMs - this.#lastWarningMs < FULL_WARNING_INTERVAL_MS) return;
    this.#lastWarningMs = nowMs;
    logEvent(pair.kernel, 'dead-letters-full', {
      directory: pair.directories.directory,
      letters: this.count,
      entries: pair.image.geometry.entries,
      todo: 'list them, and requeue or delete them: commands dead list, dead requeue, dead delete',
    });
  }

  #warnAgainLater(): void {
    if (this.#lastWarningMs !== undefined) logEvent(this.#dead.pair.kernel, 'dead-letters-have-room', {});
    this.#lastWarningMs = undefined;
  }

  /**
   * Finds the letter that holds a message already.
   * @returns its number; undefined when there is none; `mutex-held` when another process holds the mutex for too long
   */
  #find(origin: string, body: Body): number | undefined | 'mutex-held' {
    try {
      return this.#findOrigin(origin, body);
    } catch (error) {
      if (isMutexHeld(error)) return 'mutex-held';
      throw error;
    }
  }

  #findOrigin(origin: string, body: Body): number | undefined {
    const { pair } = this.#dead;
    const { image, key } = pair;
    return pair.withMutex(() => {
      this.#readNewOrigins();
      const known = this.#byOrigin.get(origin);
      if (known === undefined) return undefined;
      const at = image.entryWord(known.entry);
      const isThere =
        image.get(at + ENTRY.status) === STATUS.ready &&
        image.getWide(at + ENTRY.number) === known.number &&
        !isConsumed(image, key, image.getWide(at + ENTRY.offset), known.number);
      if (!isThere) this.#byOrigin.delete(origin);
      // Compare the stored bytes too: the note only says what was meant to be stored with it.
      const letter = isThere ? this.#bodyAt(known.entry, known.number) : undefined;
      return letter !== undefined && isSameMessage(letter, body) ? known.number : undefined;
    });
  }

  /** Reads the letter of an index entry. Returns undefined when it is damaged or holds no message. */
  #bodyAt(entry: number, number: number): Body | undefined {
    const { image, data, key } = this.#dead.pair;
    const found = readSlot(data, key, image.getWide(image.entryWord(entry) + ENTRY.offset));
    if (found.state !== 'valid' || found.header.number !== number) return undefined;
    return decodeOrUndefined(found.header.type, bodyOf(data, found.header));
  }

  /** Adds the letters that were stored since the last call, by any worker. The caller holds the mutex. */
  #readNewOrigins(): void {
    const { image } = this.#dead.pair;
    let seen = image.getWide(FIELD.nextNumber);
    if (seen === this.#seenNumber) return;
    for (let entry = image.get(FIELD.head); entry !== NONE; ) {
      const at = image.entryWord(entry);
      const number = image.getWide(at + ENTRY.number);
      if (number >= this.#seenNumber) {
        if (image.get(at + ENTRY.status) === STATUS.ready) {
          const body = this.#bodyAt(entry, number);
          const origin = body === undefined ? '' : noteOf(body).origin;
          if (origin !== '') this.#byOrigin.set(origin, { entry, number });
        } else seen = Math.min(seen, number);
      }
      entry = image.get(at + ENTRY.next);
    }
    this.#seenNumber = seen;
  }

  /** Locks up to `count` letters for which a notice is due; see `Queue.takeUnnoticed`. */
  takeUnnoticed(count: number): LockedMessage[] {
    const { pair } = this.#dead;
    const arrivals = pair.image.get(FIELD.arrivals);
    const nowMs = pair.kernel.monotonicMs();
    if (arrivals === this.#sweptArrivals && nowMs - this.#sweptMs < RESWEEP_INTERVAL_MS) return [];
    if (this.#visited === 0) this.#arrivalsAtStart = arrivals;
    const due = (state: number) => state === NOTICE.due;
    const result = this.#dead.claim({ count, bytes: MAX_TAKEN_BYTES, due });
    if (result === undefined) return [];
    this.#visited = result.claimed.length > 0 ? 0 : this.#visited + result.visited;
    if (result.claimed.length === 0 && this.#visited >= result.inUse) {
      this.#visited = 0;
      this.#sweptArrivals = this.#arrivalsAtStart;
      this.#sweptMs = nowMs;
    }
    return this.#readAll(result);
  }

  /**
   * Locks the letters whose number is wanted. Letters that another process has locked are left out.
   * @param count largest number of letters
   */
  takeWanted(wanted: (number: number) => boolean, count: number): LockedMessage[] {
    const due = (_state: number, _ms: number, number: number) => wanted(number);
    for (let visited = 0; ; ) {
      const result = this.#dead.claim({ count, bytes: MAX_TAKEN_BYTES, due });
      if (result === undefined) return [];
      if (result.claimed.length > 0) return this.#readAll(result);
      visited += result.visited;
      if (result.visited === 0 || visited >= result.inUse) return [];
    }
  }

  #readAll({ claimed }: ClaimResult): LockedMessage[] {
    return claimed.map((one) => this.#dead.read(one)).filter((letter) => letter !== undefined);
  }

  /** Unlocks letters and stores the state of their notices; `due` leaves the state as it is. */
  noticed(letters: readonly LockedMessage[], state: NoticeState): void {
    const { image, kernel } = this.#dead.pair;
    for (const letter of letters) {
      const at = this.#lockedAt(letter);
      if (state !== 'due') {
        image.put(at + ENTRY.retryCount, NOTICE[state]);
        image.putWide(at + ENTRY.lastRetry, kernel.wallClockMs());
      }
      image.put(at + ENTRY.lock, 0);
    }
    if (state === 'due') this.#sweptArrivals = undefined;
  }

  /** Removes letters that this worker has locked. */
  remove(letters: readonly LockedMessage[]): void {
    for (const letter of letters) this.#lockedAt(letter);
    if (letters.length > 0) this.#dead.release(letters.map(({ entry }) => entry));
  }

  #lockedAt({ entry, number }: LockedMessage): number {
    const { image } = this.#dead.pair;
    const at = image.entryWord(entry);
    const isLocked =
      image.getWide(at + ENTRY.number) === Number(number) && image.get(at + ENTRY.lock) === this.#dead.lock;
    assert(isLocked, 'only a dead letter that this worker has locked is changed');
    return at;
  }

  /** Writes the index to the disk, so that a power cut does not undo what was done to letters. */
  async syncIndex(): Promise<void> {
    const { pair } = this.#dead;
    try {
      await pair.syncIndex();
    } catch (error) {
      logEvent(pair.kernel, 'index-sync-failed', { error: (error as Error).message });
    }
  }
}
