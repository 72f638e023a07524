import {
  HandshakeError,
  type OutboundMessage,
  type OutboundOptions,
  OutboundSession,
  type RecipientResult,
} from './session.js';

/** Options of a destination and its sessions. */
export interface DestinationOptions extends OutboundOptions {
  /** Maximum number of open sessions. */
  sessions: number;
  backoff: Backoff;
}

/** The events that a destination reports to the delivery. */
export interface DestinationEvents<Message> {
  /** Reports one result for each recipient of a message. */
  onDone: (message: Message, results: RecipientResult[]) => void;
  /** Reports a message without results: the connection failed, or there was no connection. */
  onUndelivered: (message: Message, reason: string) => void;
  /** Reports that the last session has ended. */
  onIdle: () => void;
}

/**
 * All messages for one host and the sessions that deliver them (patent [0036]). After a failed connection the
 * destination opens no session for a while, longer after each failure. Messages that are added during this
 * pause are reported as undelivered at once.
 */
export class Destination<Message extends OutboundMessage> {
  readonly #options: DestinationOptions;
  readonly #events: DestinationEvents<Message>;
  readonly #waiting: Message[] = [];
  /** Index of the next message in `#waiting`. Shifting a long array for each message would be slow. */
  #nextIndex = 0;
  readonly #sessions = new Set<OutboundSession<Message>>();
  #consecutiveFailures = 0;
  #lastFailure = '';
  #backoffUntilMs = 0;
  #stopping = false;
  /** Whether the next session must do without TLS, because the hop offers it and cannot speak it. */
  #skipTlsOnce = false;
  #lastDoneMs = performance.now();

  constructor(options: DestinationOptions, events: DestinationEvents<Message>) {
    this.#options = options;
    this.#events = events;
  }

  /** Number of messages that no session has taken yet. */
  get waitingCount(): number {
    return this.#waiting.length - this.#nextIndex;
  }

  /** Whether the destination has neither sessions nor waiting messages. */
  get isIdle(): boolean {
    return this.#sessions.size === 0 && this.waitingCount === 0;
  }

  /** Milliseconds since the last message was finished; 0 if no messages wait. */
  get stalledMs(): number {
    return this.waitingCount === 0 ? 0 : performance.now() - this.#lastDoneMs;
  }

  /** Adds a message, or reports it as undelivered during the pause after a failed connection. */
  add(message: Message): void {
    if (this.#sessions.size === 0 && performance.now() < this.#backoffUntilMs) {
      this.#events.onUndelivered(message, this.#lastFailure);
      return;
    }
    if (this.waitingCount === 0) this.#lastDoneMs = performance.now();
    this.#waiting.push(message);
  }

  /** Wakes idle sessions and opens more. The caller has added all messages of a batch before. */
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

  /** Removes and returns the messages that no session has taken yet. */
  release(): Message[] {
    const released = this.#waiting.slice(this.#nextIndex);
    this.#waiting.length = 0;
    this.#nextIndex = 0;
    return released;
  }

  /** Makes the sessions finish their messages and take no more. */
  stop(): void {
    this.#stopping = true;
    for (const session of this.#sessions) session.stop();
  }

  /** Ends the sessions at once. Their messages are reported as undelivered. */
  abort(): void {
    for (const session of this.#sessions) session.abort();
  }

  #canOpen(): boolean {
    return !this.#stopping && performance.now() >= this.#backoffUntilMs;
  }

  #open(): void {
    const { tls } = this.#options;
    const isTlsSkipped = this.#skipTlsOnce;
    this.#skipTlsOnce = false;
    const options = isTlsSkipped
      ? { ...this.#options, tls: { ...tls, mode: 'off' as const }, isTlsSkipped }
      : this.#options;
    const session = new OutboundSession<Message>(options, {
      next: () => this.#next(),
      done: (message, results) => {
        this.#consecutiveFailures = 0;
        this.#lastDoneMs = performance.now();
        this.#events.onDone(message, results);
      },
    });
    this.#sessions.add(session);
    void session.run().then(({ failure, undelivered, deliveredAny }) => {
      this.#sessions.delete(session);
      // With `may`, mail without TLS is better than no mail (RFC 7435): the next session, at once, does without.
      if (failure instanceof HandshakeError && tls.mode === 'may') this.#skipTlsOnce = true;
      else if (failure !== undefined) this.#recordFailure(failure.message, deliveredAny);
      for (const message of undelivered)
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
   * Records the failure of a session. If the session delivered a message, a new one may be opened at once. If
   * it delivered none, the host is down or accepts no more sessions, and the pause starts.
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

/** Limits of the pause between attempts, in milliseconds. */
export interface Backoff {
  initialMs: number;
  maxMs: number;
}

/**
 * Returns the pause in milliseconds after this number of successive failures. The pause doubles with each
 * failure, up to the maximum, and is 0 without a failure.
 */
export function backoffMs({ initialMs, maxMs }: Backoff, tries: number): number {
  return tries <= 0 ? 0 : Math.min(maxMs, initialMs * 2 ** Math.min(tries - 1, 40));
}

/** Returns the number of attempts that fit into a time: the first one, and one after each pause. */
export function attemptsWithin(backoff: Backoff, timeMs: number): number {
  let tries = 1;
  let passedMs = 0;
  for (;;) {
    const pauseMs = backoffMs(backoff, tries);
    // All further pauses are as long.
    if (pauseMs === backoff.maxMs) return tries + Math.floor(Math.max(0, timeMs - passedMs) / pauseMs);
    passedMs += pauseMs;
    if (passedMs > timeMs) return tries;
    tries += 1;
  }
}

/**
 * Returns whether a message may be tried again now. Times are in milliseconds since the epoch. A last attempt
 * in the future means that the clock was set back, which must not delay the message.
 */
export function isDue(backoff: Backoff, retryCount: number, lastRetryMs: number, nowMs: number): boolean {
  return retryCount === 0 || nowMs < lastRetryMs || nowMs - lastRetryMs >= backoffMs(backoff, retryCount);
}
