import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { KitError, messageOf } from '../errors.js';
import type { HistoryEvent, Untimed } from './events.js';

/** Longest time until an event is written. A killed kit loses at most the events of this time. */
const MAX_WRITE_DELAY_MS = 50;
/** Number of pending bytes that are written at once, so that memory and the loss at a kill stay bounded. */
const BATCH_BYTES = 256 * 1024;

/** Appends events to a file as JSON lines, and keeps them in memory for the checkers. */
export class Recorder {
  /** All events recorded so far, in order. Readers must not change it. */
  readonly events: HistoryEvent[] = [];
  readonly #fd: number;
  readonly #file: string;
  #startMs = performance.now();
  readonly #onExit = () => this.#write();
  #pending: string[] = [];
  #pendingBytes = 0;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  readonly #failure = new AbortController();

  /** @throws KitError kit-failed when `file` cannot be created; an existing file is never overwritten. */
  constructor(file: string) {
    this.#file = file;
    try {
      this.#fd = openSync(file, 'ax');
    } catch (error) {
      throw new KitError('kit-failed', `${file}: cannot create the history: ${messageOf(error)}`, {
        cause: error,
      });
    }
    process.once('exit', this.#onExit);
  }

  /**
   * Signal that is aborted, with a KitError as its reason, when the history file can no longer be written.
   * The run must then end. An exception could not report this failure: most events come from timers and
   * sockets, where no caller can catch an exception.
   */
  get failureSignal(): AbortSignal {
    return this.#failure.signal;
  }

  /** Returns the time since the start of the recorder, in milliseconds. */
  nowMs(): number {
    return Math.round((performance.now() - this.#startMs) * 1000) / 1000;
  }

  /**
   * Records an event with the current time.
   * @throws KitError kit-failed after `close`.
   */
  record<E extends Untimed<HistoryEvent>>(event: E): E & { atMs: number } {
    if (this.#closed)
      throw new KitError('kit-failed', `${this.#file}: recorded after the end: ${event.kind}`);
    const { kind, ...rest } = event;
    const timed = { kind, atMs: this.nowMs(), ...rest } as unknown as E & { atMs: number };
    // The cast is safe: an event with its time added is a HistoryEvent. The compiler cannot follow Omit through
    // the union.
    this.#append(timed as unknown as HistoryEvent);
    return timed;
  }

  /** Adds an event of an earlier run with its own time. Events that are recorded afterwards get later times. */
  importEvent(event: HistoryEvent): void {
    this.#startMs = Math.min(this.#startMs, performance.now() - event.atMs);
    this.#append(event);
  }

  #append(event: HistoryEvent): void {
    this.events.push(event);
    const line = `${JSON.stringify(event)}\n`;
    this.#pending.push(line);
    this.#pendingBytes += line.length;
    if (this.#pendingBytes >= BATCH_BYTES) this.#write();
    else this.#timer ??= setTimeout(() => this.#write(), MAX_WRITE_DELAY_MS);
  }

  /**
   * Writes the pending events, syncs the file and closes it. May be called twice.
   * @throws KitError kit-failed when the history could not be written completely.
   */
  close(): void {
    if (this.#closed) return;
    this.#write();
    this.#closed = true;
    process.removeListener('exit', this.#onExit);
    try {
      fsyncSync(this.#fd);
    } catch (error) {
      this.#fail(error);
    }
    closeSync(this.#fd);
    this.failureSignal.throwIfAborted();
  }

  #write(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#pending.length === 0 || this.failureSignal.aborted) return;
    const bytes = Buffer.from(this.#pending.join(''));
    this.#pending = [];
    this.#pendingBytes = 0;
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(this.#fd, bytes, done);
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    const message = `${this.#file}: cannot write the history: ${messageOf(error)}`;
    this.#failure.abort(new KitError('kit-failed', message, { cause: error }));
  }
}
