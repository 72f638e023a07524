import type { LockedMessage, Queue } from '../../queue/types.js';
import type { Body } from '../../record/body.js';
import { type Backoff, Destination, isDue } from './destination.js';
import { bodyForRecipients, type Envelope, envelopeOf, type Routing } from './routing.js';
import type { OutboundOptions, RecipientResult } from './session.js';

/** Options of the delivery. The fields are those of the `delivery` settings. */
export interface DeliveryOptions extends Omit<OutboundOptions, 'host' | 'port' | 'keepIdleMs'> {
  routing: Routing;
  /** Maximum number of open sessions to one destination. */
  sessions: number;
  batchMessages: number;
  batchBytes: number;
  retryLimit: number;
  backoff: Backoff;
}

/** A locked message on its way to a destination. */
interface OutgoingMessage {
  locked: LockedMessage;
  envelope: Envelope;
  data: Buffer;
}

/** Time that a session stays open without a message, in milliseconds. */
const SESSION_IDLE_TIMEOUT_MS = 1000;
/**
 * Longest interval between polls of the queue for messages that became due or
 * whose worker died, in milliseconds.
 */
const MAX_POLL_INTERVAL_MS = 500;
const MIN_POLL_INTERVAL_MS = 20;
/**
 * Time without a finished message, in milliseconds, after which a destination counts as stalled. If the limit
 * of locked messages is reached, a stalled destination returns its waiting messages.
 */
const STALL_TIMEOUT_MS = 1000;

/**
 * Queue processing (patent [0035, 0036]): locks messages in queue order and groups them by destination host
 * with an index in memory. The reply of the host decides whether a message is consumed, unlocked for a retry,
 * or buried in the dead-letter queue.
 */
export class Delivery {
  readonly #queue: Queue;
  readonly #options: DeliveryOptions;
  readonly #onFailure: (reason: unknown) => void;
  readonly #destinations = new Map<string, Destination<OutgoingMessage>>();
  /** All messages that this worker holds locked. */
  readonly #lockedMessages = new Set<LockedMessage>();
  #lockedBytes = 0;
  #consumed: LockedMessage[] = [];
  #toRetry: LockedMessage[] = [];
  #isFlushScheduled = false;
  #isPollScheduled = false;
  #mayHaveMore = false;
  #timer: NodeJS.Timeout | undefined;
  #stopping = false;
  #onIdle: (() => void) | undefined;
  /** Splits and burials that wait for the queue. */
  readonly #pendingStores = new Set<Promise<void>>();

  /** @param onFailure called when the queue itself fails; delivery cannot continue then */
  constructor(queue: Queue, options: DeliveryOptions, onFailure: (reason: unknown) => void) {
    this.#queue = queue;
    this.#options = options;
    this.#onFailure = onFailure;
  }

  /** Starts to take messages from the queue and to deliver them. */
  start(): void {
    this.#queue.onArrival(() => this.#schedulePoll());
    const pollIntervalMs = Math.min(
      MAX_POLL_INTERVAL_MS,
      Math.max(MIN_POLL_INTERVAL_MS, this.#options.backoff.initialMs / 2),
    );
    this.#timer = setInterval(() => this.#schedulePoll(), pollIntervalMs);
    this.#schedulePoll();
  }

  /** Takes no more messages, finishes those that are being sent within `graceMs`, and unlocks the rest. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#timer);
    const idle = new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
    for (const destination of this.#destinations.values()) {
      this.#unlockUntried(destination.release());
      destination.stop();
    }
    this.#checkIdle();
    const timer = setTimeout(() => {
      for (const destination of this.#destinations.values()) destination.abort();
    }, graceMs);
    await idle;
    clearTimeout(timer);
    await Promise.all(this.#pendingStores);
    this.#flushResults();
  }

  /** Schedules one poll in the next turn of the event loop. Further calls before it have no effect. */
  #schedulePoll(): void {
    if (this.#isPollScheduled || this.#stopping) return;
    this.#isPollScheduled = true;
    setImmediate(() => {
      this.#isPollScheduled = false;
      try {
        this.#poll();
      } catch (reason) {
        this.#onFailure(reason);
      }
    });
  }

  #poll(): void {
    if (this.#stopping) return;
    this.#flushResults();
    const capacity = this.#freeCapacity();
    if (capacity === undefined) this.#releaseStalled();
    else this.#take(capacity);
    for (const destination of this.#destinations.values()) destination.start();
  }

  #take(capacity: { count: number; bytes: number }): void {
    const { backoff } = this.#options;
    const nowMs = Date.now();
    const due = (retryCount: number, lastRetryMs: number) => isDue(backoff, retryCount, lastRetryMs, nowMs);
    const taken = this.#queue.take({ ...capacity, due });
    this.#mayHaveMore = taken.length > 0;
    for (const locked of taken) this.#dispatch(locked);
  }

  #freeCapacity(): { count: number; bytes: number } | undefined {
    const count = this.#options.batchMessages - this.#lockedMessages.size;
    const bytes = this.#options.batchBytes - this.#lockedBytes;
    return count > 0 && bytes > 0 ? { count, bytes } : undefined;
  }

  #dispatch(locked: LockedMessage): void {
    this.#lockedMessages.add(locked);
    this.#lockedBytes += locked.body.data.length;
    const address = locked.body.destination ?? this.#options.routing.nextHop;
    if (address === undefined) {
      this.#postpone(locked, 'there is no route to its destination, and no next hop');
      return;
    }
    const envelope = envelopeOf(this.#options.routing, locked.body);
    this.#destinationAt(address).add({ locked, envelope, data: locked.body.data });
  }

  #destinationAt(address: string): Destination<OutgoingMessage> {
    const known = this.#destinations.get(address);
    if (known !== undefined) return known;
    const at = address.lastIndexOf(':');
    const host = address.slice(0, at).replace(/^\[(.*)\]$/, '$1');
    const port = Number(address.slice(at + 1));
    const destination = new Destination<OutgoingMessage>(
      { ...this.#options, host, port, keepIdleMs: SESSION_IDLE_TIMEOUT_MS },
      {
        onDone: (parcel, results) => this.#onDone(parcel.locked, results),
        onUndelivered: (parcel, reason) => this.#postpone(parcel.locked, reason),
        onIdle: () => this.#checkIdle(),
      },
    );
    this.#destinations.set(address, destination);
    return destination;
  }

  #onDone(locked: LockedMessage, results: readonly RecipientResult[]): void {
    const [first] = results;
    const isSame = results.every((result) => result.result === first?.result);
    if (first === undefined || !isSame) this.#trackStore(this.#split(locked, results));
    else if (first.result === 'delivered') this.#consume(locked);
    else if (first.result === 'refused') this.#trackStore(this.#bury(locked, first.reason));
    else this.#postpone(locked, first.reason);
  }

  /**
   * Unlocks a message for a retry, or buries it in the dead-letter queue after the retry limit (patent [0035]).
   */
  #postpone(locked: LockedMessage, reason: string): void {
    if (locked.retryCount >= this.#options.retryLimit) {
      this.#trackStore(this.#bury(locked, `retry limit exceeded: ${reason}`));
      return;
    }
    this.#toRetry.push(locked);
    this.#scheduleFlush();
  }

  #consume(locked: LockedMessage): void {
    this.#consumed.push(locked);
    this.#scheduleFlush();
  }

  async #bury(locked: LockedMessage, reason: string): Promise<void> {
    await this.#queue.bury(locked, reason);
    this.#forget(locked);
  }

  /**
   * Splits a message that only some recipients received. The deferred recipients get a new record and the
   * refused ones another. The old record is consumed after the new ones are confirmed. If they cannot be
   * stored, the old record stays and all recipients are tried again.
   */
  async #split(locked: LockedMessage, results: readonly RecipientResult[]): Promise<void> {
    const bodies: Body[] = [];
    for (const wanted of ['deferred', 'refused'] as const) {
      const positions = new Set<number>();
      results.forEach((result, position) => {
        if (result.result === wanted) positions.add(position);
      });
      if (positions.size > 0) bodies.push(bodyForRecipients(locked.body, positions));
    }
    const { outcome } = await this.#queue.enqueue(bodies);
    if (outcome === 'confirmed') this.#consume(locked);
    else this.#postpone(locked, `some recipients are left over, and storing them was ${outcome}`);
  }

  #trackStore(work: Promise<void>): void {
    const tracked = work.catch(this.#onFailure).finally(() => {
      this.#pendingStores.delete(tracked);
      this.#checkIdle();
    });
    this.#pendingStores.add(tracked);
  }

  /** Schedules one flush per turn of the event loop, so that the index is locked once for many messages. */
  #scheduleFlush(): void {
    if (this.#isFlushScheduled) return;
    this.#isFlushScheduled = true;
    setImmediate(() => {
      this.#isFlushScheduled = false;
      try {
        this.#flushResults();
        // Refill the batch when it is half empty: taking messages one by one would lock the index for each.
        if (this.#mayHaveMore && this.#lockedMessages.size <= this.#options.batchMessages / 2)
          this.#schedulePoll();
      } catch (reason) {
        this.#onFailure(reason);
      }
    });
  }

  #flushResults(): void {
    const consumed = this.#consumed;
    const toRetry = this.#toRetry;
    this.#consumed = [];
    this.#toRetry = [];
    if (consumed.length > 0) this.#queue.consume(consumed);
    if (toRetry.length > 0) this.#queue.unlock(toRetry, true);
    for (const locked of consumed) this.#forget(locked);
    for (const locked of toRetry) this.#forget(locked);
  }

  #forget(locked: LockedMessage): void {
    if (this.#lockedMessages.delete(locked)) this.#lockedBytes -= locked.body.data.length;
  }

  #unlockUntried(parcels: readonly OutgoingMessage[]): void {
    if (parcels.length === 0) return;
    const messages = parcels.map((parcel) => parcel.locked);
    this.#queue.unlock(messages, false);
    for (const locked of messages) this.#forget(locked);
  }

  /**
   * Returns the messages that wait for stalled destinations. It is called when the limit of locked messages
   * is reached: a host that accepts messages without finishing any must not block the messages of other
   * hosts.
   */
  #releaseStalled(): void {
    this.#mayHaveMore = true;
    for (const destination of this.#destinations.values()) {
      if (destination.stalledMs < STALL_TIMEOUT_MS) continue;
      for (const parcel of destination.release()) this.#postpone(parcel.locked, 'the next hop is too slow');
    }
  }

  #checkIdle(): void {
    if (this.#onIdle === undefined || this.#pendingStores.size > 0) return;
    if ([...this.#destinations.values()].every((destination) => destination.isIdle)) this.#onIdle();
  }
}
