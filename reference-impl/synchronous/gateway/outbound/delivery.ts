import type { DeadReason, DeliveryFailure } from '../../queue/dead-note.js';
import type { Attempt, LockedMessage, Queue } from '../../queue/types.js';
import type { Body } from '../../record/body.js';
import { Conversions } from './conversions.js';
import { attemptsWithin, type Backoff, Destination, isDue } from './destination.js';
import { Notices, type NoticesOptions } from './notices.js';
import { bodyForRecipients, type Envelope, envelopeOf, type Routing } from './routing.js';
import type { OutboundOptions, RecipientResult } from './session.js';

/** Options of the delivery. The fields are those of the `delivery` settings. */
export interface DeliveryOptions
  extends Omit<OutboundOptions, 'host' | 'port' | 'keepIdleMs' | 'conversions'>,
    NoticesOptions {
  routing: Routing;
  /** Maximum number of open sessions to one destination. */
  sessions: number;
  batchMessages: number;
  batchBytes: number;
  /** Number of retries with an answer of the next hop; null: no limit. */
  retryLimit: number | null;
  maxAgeMs: number;
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
  #toRetry: { locked: LockedMessage; attempt: Attempt }[] = [];
  #isFlushScheduled = false;
  #isPollScheduled = false;
  #mayHaveMore = false;
  #timer: NodeJS.Timeout | undefined;
  #stopping = false;
  #onIdle: (() => void) | undefined;
  /** Splits and burials that wait for the queue. */
  readonly #pendingStores = new Set<Promise<void>>();
  readonly #notices: Notices;
  readonly #conversions = new Conversions();
  /** Number of attempts before which no message is too old. */
  readonly #minAttempts: number;

  /** @param onFailure called when the queue itself fails; delivery cannot continue then */
  constructor(queue: Queue, options: DeliveryOptions, onFailure: (reason: unknown) => void) {
    this.#queue = queue;
    this.#options = options;
    this.#onFailure = onFailure;
    this.#notices = new Notices(queue, options, onFailure);
    this.#minAttempts = Math.floor(attemptsWithin(options.backoff, options.maxAgeMs) / 2);
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
    this.#notices.start();
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
    await Promise.all([...this.#pendingStores, this.#notices.stop()]);
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
      this.#postpone(locked, 'there is no route to its destination, and no next hop', 'failed');
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
      {
        ...this.#options,
        host,
        port,
        keepIdleMs: SESSION_IDLE_TIMEOUT_MS,
        conversions: this.#conversions,
      },
      {
        onDone: (parcel, results) => this.#onDone(parcel.locked, results),
        onUndelivered: (parcel, reason) => this.#postpone(parcel.locked, reason, 'failed'),
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
    else if (first.result === 'refused') {
      const replies = results.map((result) => (result.result === 'refused' ? result.reason : ''));
      this.#trackStore(this.#bury(locked, { reason: refusalReason(replies), replies }));
    } else this.#postpone(locked, first.reason, 'answered');
  }

  /**
   * Unlocks a message for a retry, or buries it in the dead-letter queue (patent [0035]): when it is too old, or
   * when the next hop has answered for it more often than the retry limit. Attempts that failed with the
   * connection do not count for that limit: a next hop that is down says nothing about the message.
   */
  #postpone(locked: LockedMessage, reply: string, attempt: Attempt): void {
    const { retryLimit } = this.#options;
    const isUsedUp = attempt === 'answered' && retryLimit !== null && locked.answeredCount >= retryLimit;
    if (isUsedUp) this.#giveUp(locked, 'retries-used-up', reply);
    else if (this.#isTooOld(locked)) this.#giveUp(locked, 'too-old', reply);
    else this.#retry(locked, attempt);
  }

  /**
   * Returns whether a message is too old. The age alone is not enough: a clock that jumps, or a gateway that was
   * switched off for a week, would make every waiting message too old at once.
   */
  #isTooOld({ queuedAtMs, retryCount }: LockedMessage): boolean {
    return Date.now() - queuedAtMs >= this.#options.maxAgeMs && retryCount + 1 >= this.#minAttempts;
  }

  #giveUp(locked: LockedMessage, reason: DeadReason, reply: string): void {
    this.#trackStore(this.#bury(locked, { reason, replies: [reply] }));
  }

  #retry(locked: LockedMessage, attempt: Attempt): void {
    this.#toRetry.push({ locked, attempt });
    this.#scheduleFlush();
  }

  #consume(locked: LockedMessage): void {
    this.#consumed.push(locked);
    this.#scheduleFlush();
  }

  /**
   * Moves a message to the dead-letter queue. If that is full, the message is parked: it stays in the queue and is
   * tried again with back-off, and other messages overtake it. When parked messages use up their share of the
   * queue, the message goes back to its sender instead. A message without a sender stays parked.
   */
  async #bury(locked: LockedMessage, failure: DeliveryFailure): Promise<void> {
    const outcome = await this.#queue.bury(locked, failure);
    if (outcome === 'buried') {
      this.#forget(locked);
      this.#notices.look();
    } else if (outcome === 'failed') this.#retry(locked, 'answered');
    else if (this.#queue.parked().isShareFull && (await this.#notices.returnToSender(locked, failure)))
      this.#consume(locked);
    else this.#retry(locked, 'parked');
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
    else this.#postpone(locked, `some recipients are left over, and storing them was ${outcome}`, 'failed');
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
    for (const wanted of ['failed', 'answered', 'parked'] as const) {
      const messages = toRetry.filter(({ attempt }) => attempt === wanted).map(({ locked }) => locked);
      if (messages.length > 0) this.#queue.unlock(messages, wanted);
    }
    for (const locked of consumed) this.#forget(locked);
    for (const { locked } of toRetry) this.#forget(locked);
  }

  #forget(locked: LockedMessage): void {
    if (this.#lockedMessages.delete(locked)) this.#lockedBytes -= locked.body.data.length;
  }

  #unlockUntried(parcels: readonly OutgoingMessage[]): void {
    if (parcels.length === 0) return;
    const messages = parcels.map((parcel) => parcel.locked);
    this.#queue.unlock(messages, 'none');
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
      for (const parcel of destination.release()) {
        this.#postpone(parcel.locked, 'the next hop is too slow', 'failed');
      }
    }
  }

  #checkIdle(): void {
    if (this.#onIdle === undefined || this.#pendingStores.size > 0) return;
    if ([...this.#destinations.values()].every((destination) => destination.isIdle)) this.#onIdle();
  }
}

/** Returns the reason of a refusal. 5.4.6 is the enhanced code for a routing loop (RFC 3463). */
const refusalReason = (replies: readonly string[]): DeadReason =>
  replies.every((reply) => /^5\d\d[ -]5\.4\.6\b/.test(reply)) ? 'loop' : 'refused';
