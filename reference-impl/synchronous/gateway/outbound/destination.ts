import {
  type OutboundMessage,
  type OutboundOptions,
  OutboundSession,
  type RecipientResult,
} from './session.js';

export interface DestinationOptions extends OutboundOptions {
  /** Most sessions at a time. */
  sessions: number;
  backoff: Backoff;
}

/** What a destination tells the delivery. */
export interface DestinationEvents<Message> {
  onDone: (message: Message, results: RecipientResult[]) => void;
  /** The message could not be tried to its end; the connection failed, or there was none. */
  onUndelivered: (message: Message, reason: string) => void;
  /** The last session has ended. */
  onIdle: () => void;
}

/**
 * All messages to one host, and the sessions that take them there [0036]. A host that cannot be reached is left alone
 * for a while, longer each time; what is given to it meanwhile comes back at once.
 */
export class Destination<Message extends OutboundMessage> {
  readonly #options: DestinationOptions;
  readonly #events: DestinationEvents<Message>;
  readonly #waiting: Message[] = [];
  /** Where in `#waiting` the next message is: shifting a long array each time would cost. */
  #nextIndex = 0;
  readonly #sessions = new Set<OutboundSession<Message>>();
  #consecutiveFailures = 0;
  #lastFailure = '';
  #backoffUntilMs = 0;
  #stopping = false;
  #lastDoneMs = performance.now();

  constructor(options: DestinationOptions, events: DestinationEvents<Message>) {
    this.#options = options;
    this.#events = events;
  }

  /** Messages that no session has taken yet. */
  get waitingCount(): number {
    return this.#waiting.length - this.#nextIndex;
  }

  get isIdle(): boolean {
    return this.#sessions.size === 0 && this.waitingCount === 0;
  }

  /** For how long, in milliseconds, nothing was finished although messages wait. */
  get stalledMs(): number {
    return this.waitingCount === 0 ? 0 : performance.now() - this.#lastDoneMs;
  }

  add(message: Message): void {
    if (this.#sessions.size === 0 && performance.now() < this.#backoffUntilMs) {
      this.#events.onUndelivered(message, this.#lastFailure);
      return;
    }
    if (this.waitingCount === 0) this.#lastDoneMs = performance.now();
    this.#waiting.push(message);
  }

  /** Puts idle sessions to work and opens more, once all messages of a batch were added. */
  start(): void {
    let waiting = this.waitingCount;
    for (const session of this.#sessions) {
      if (waiting === 0) return;
      if (!session.isIdle) continue;
      session.wake();
      waiting -= 1;
    }
    while (waiting > 0 && this.#sessions.size < this.#options.sessions && this.#canOpen()) {
      this.#open();
      waiting -= 1;
    }
  }

  /** Gives back what no session has taken yet. */
  release(): Message[] {
    const released = this.#waiting.slice(this.#nextIndex);
    this.#waiting.length = 0;
    this.#nextIndex = 0;
    return released;
  }

  /** No more messages; sessions finish what they have. */
  stop(): void {
    this.#stopping = true;
    for (const session of this.#sessions) session.stop();
  }

  /** Ends the sessions at once; what they had comes back undone. */
  abort(): void {
    for (const session of this.#sessions) session.abort();
  }

  #canOpen(): boolean {
    return !this.#stopping && performance.now() >= this.#backoffUntilMs;
  }

  #open(): void {
    const session = new OutboundSession<Message>(this.#options, {
      next: () => this.#next(),
      done: (message, results) => {
        this.#consecutiveFailures = 0;
        this.#lastDoneMs = performance.now();
        this.#events.onDone(message, results);
      },
    });
    this.#sessions.add(session);
    void session.run().then(({ failure, undelivered: undone, deliveredAny: delivering }) => {
      this.#sessions.delete(session);
      if (failure !== undefined) this.#recordFailure(failure.message, delivering);
      for (const message of undone)
        this.#events.onUndelivered(message, failure?.message ?? 'the session ended');
      if (!this.#stopping) this.start();
      if (this.#sessions.size === 0) this.#events.onIdle();
    });
  }

  #next(): Message | undefined {
    const message = this.#waiting[this.#nextIndex];
    if (message === undefined) return undefined;
    this.#nextIndex += 1;
    if (this.#nextIndex === this.#waiting.length) {
      this.#waiting.length = 0;
      this.#nextIndex = 0;
    }
    return message;
  }

  /**
   * A session that delivered something broke by accident and may be opened again; one that delivered nothing means
   * that the host is down, or at least wants no more sessions.
   */
  #recordFailure(reason: string, deliveredAny: boolean): void {
    this.#lastFailure = reason;
    if (deliveredAny) return;
    this.#consecutiveFailures += 1;
    this.#backoffUntilMs = performance.now() + backoffMs(this.#options.backoff, this.#consecutiveFailures);
    if (this.#sessions.size > 0) return;
    for (const message of this.release()) this.#events.onUndelivered(message, reason);
  }
}

export interface Backoff {
  initialMs: number;
  maxMs: number;
}

/** The pause after so many failed tries in a row: it doubles with each, up to the longest; none before the first. */
export function backoffMs({ initialMs, maxMs }: Backoff, tries: number): number {
  return tries <= 0 ? 0 : Math.min(maxMs, initialMs * 2 ** Math.min(tries - 1, 40));
}

/**
 * May a message be tried now that failed so often, and last then? A last try in the future means that the clock was
 * set back; it must not hold the message up.
 */
export function isDue(backoff: Backoff, retryCount: number, lastRetryMs: number, nowMs: number): boolean {
  return retryCount === 0 || nowMs < lastRetryMs || nowMs - lastRetryMs >= backoffMs(backoff, retryCount);
}
