import {
  type DeadNote,
  type DeliveryFailure,
  escapeText,
  MAX_REPLY_LENGTH,
  noteOf,
  originOf,
  withoutNote,
} from '../../queue/dead-note.js';
import type { LockedMessage, Queue } from '../../queue/types.js';
import type { SmtpBody } from '../../record/body.js';
import { buildNotice } from './notice.js';
import { bodiesOf, hasRoute, type Routing } from './routing.js';

/** Options of the notices. */
export interface NoticesOptions {
  routing: Routing;
  /** Host name of this gateway. */
  hostname: string;
  /** Whether senders get notices. */
  notices: boolean;
  noticeReturnBytes: number;
  /** Writes a line for the operator. */
  log: (event: string, fields: object) => void;
}

/** Milliseconds between two searches for dead letters with a due notice. */
const POLL_INTERVAL_MS = 200;
/** Milliseconds until the next search when the main queue has no room for a notice. */
const FULL_PAUSE_MS = 1000;
/** Number of dead letters that are handled together. At most as many notices are sent twice after a crash. */
const BATCH_SIZE = 16;

/**
 * Sends notices to the senders of dead letters. The state of a dead letter stays `due` until its notice is on the
 * disk in the main queue. A crash in between sends the notice a second time, with the same Message-ID,
 * and never loses it.
 */
export class Notices {
  readonly #queue: Queue;
  readonly #options: NoticesOptions;
  readonly #onFailure: (reason: unknown) => void;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #pauseUntilMs = 0;
  #stopping = false;

  /** @param onFailure called when the queue itself fails */
  constructor(queue: Queue, options: NoticesOptions, onFailure: (reason: unknown) => void) {
    this.#queue = queue;
    this.#options = options;
    this.#onFailure = onFailure;
  }

  start(): void {
    this.#timer = setInterval(() => this.look(), POLL_INTERVAL_MS);
    this.look();
  }

  /** Waits for the notices that are being stored. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#timer);
    await this.#running;
  }

  /** Finds dead letters with a due notice and handles them. */
  look(): void {
    if (this.#running !== undefined || this.#stopping || performance.now() < this.#pauseUntilMs) return;
    this.#running = this.#handleAll()
      .catch(this.#onFailure)
      .finally(() => {
        this.#running = undefined;
      });
  }

  async #handleAll(): Promise<void> {
    while (!this.#stopping && performance.now() >= this.#pauseUntilMs) {
      const letters = this.#queue.takeUnnoticed(BATCH_SIZE);
      if (letters.length === 0) return;
      await Promise.all(letters.map((letter) => this.#handle(letter)));
      await this.#queue.syncDead();
    }
  }

  async #handle(letter: LockedMessage): Promise<void> {
    const note = noteOf(letter.body);
    const body = this.#addressed(letter);
    if (body === undefined || note.reason === 'unknown') {
      this.#queue.noticed([letter], 'none');
      return;
    }
    const outcome = await this.#store(body, note, this.#options.noticeReturnBytes);
    if (outcome === 'later') this.#pauseUntilMs = performance.now() + FULL_PAUSE_MS;
    this.#queue.noticed([letter], outcome === 'stored' ? 'sent' : outcome === 'later' ? 'due' : 'none');
  }

  /**
   * Stores a notice that takes the place of a message: neither the dead-letter queue nor the main queue has room
   * to keep it.
   * @returns whether the notice is on the disk, so that the caller may remove the message
   */
  async returnToSender(message: LockedMessage, failure: DeliveryFailure): Promise<boolean> {
    const body = this.#addressed(message);
    if (body === undefined) return false;
    const nowMs = Date.now();
    const { queuedAtMs, retryCount } = message;
    const times = { queuedAtMs, firstAttemptMs: message.firstRetryMs, lastAttemptMs: nowMs };
    const origin = originOf(message);
    const replies = failure.replies.map((reply) => escapeText(reply, MAX_REPLY_LENGTH));
    const note = { ...failure, ...times, replies, attempts: retryCount + 1, origin };
    const outcome = await this.#store(body, note, Number.POSITIVE_INFINITY);
    if (outcome !== 'stored') return false;
    this.#options.log('dead-letter-returned', {
      number: `${message.number}`,
      sender: escapeText(body.sender),
      recipients: body.recipients.map((recipient) => escapeText(recipient)),
      reason: failure.reason,
      reply: escapeText(failure.replies[0] ?? ''),
    });
    return true;
  }

  /** Returns the message as mail when its sender can get a notice: not for bounces, SMS and unknown routes. */
  #addressed({ body }: LockedMessage): SmtpBody | undefined {
    const { notices, routing } = this.#options;
    if (!notices || body.type !== 'smtp' || body.sender === '') return undefined;
    const domain = body.sender.slice(body.sender.lastIndexOf('@') + 1).toLowerCase();
    if (hasRoute(routing, domain)) return withoutNote(body);
    this.#options.log('notice-not-sent', {
      sender: escapeText(body.sender),
      reason: 'no route to the sender',
    });
    return undefined;
  }

  /** Stores a notice in the main queue; a smaller one if the first is larger than a record may be. */
  async #store(
    body: SmtpBody,
    note: DeadNote,
    returnBytes: number,
  ): Promise<'stored' | 'later' | 'impossible'> {
    const { routing, hostname } = this.#options;
    const destination = body.destination ?? routing.nextHop;
    const short = { ...note, replies: note.replies.slice(0, 1).map((reply) => reply.slice(0, 80)) };
    for (const [kept, limitBytes] of [
      [note, returnBytes],
      [short, 0],
    ] as const) {
      const options = { hostname, returnBytes: limitBytes, nowMs: Date.now() };
      const { data } = buildNotice({ body, note: kept, destination }, options);
      const outcome = await this.#queue.enqueue(
        bodiesOf(routing, { sender: '', recipients: [body.sender] }, data),
      );
      if (outcome.outcome === 'confirmed') return 'stored';
      if (outcome.outcome === 'indefinite' || outcome.reason !== 'too-large') return 'later';
    }
    this.#options.log('notice-not-sent', {
      sender: escapeText(body.sender),
      reason: 'the notice is too large',
    });
    return 'impossible';
  }
}
