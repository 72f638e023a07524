import { setTimeout as delay } from 'node:timers/promises';
import type { Producer, Protocol } from '../../../conformance/protocols/protocol.js';
import type { Random } from '../../../faults/fault.js';
import type { Ledger } from './ledger.js';
import { FLOOD_BYTES, stepOf } from './messages.js';

export interface ProducersOptions {
  run: string;
  round: number;
  protocol: Protocol;
  ports: readonly number[];
  ledger: Ledger;
  random: Random;
  count: number;
  /** No more than so many messages in a connection at once. */
  depth: number;
  signal: AbortSignal;
}

/** What a target may hold, as long as it is not flooded: the run must be able to drain in a few seconds. */
const BACKLOG_MESSAGES = 250;
const BACKLOG_BYTES = 12 * 1024 * 1024;
const TRICKLE_MS = 100;
const CONNECT_TIMEOUT_MS = 2000;
const RETRY_MS = 15;
const REJECTED_REST_MS = 20;
const MESSAGES_PER_CONNECTION = 40;

/** Several producers that submit, each at its own pace, whatever happens to the target, until they are stopped. */
export class Producers {
  #floodBytes = 0;
  readonly #options: ProducersOptions;
  readonly #loops: Promise<void>[];
  #failure: unknown;
  #stopped = false;

  constructor(options: ProducersOptions) {
    this.#options = options;
    this.#loops = Array.from({ length: options.count }, (_, producer) =>
      this.#loop(producer).catch((error: unknown) => {
        this.#failure ??= error;
        this.#stopped = true;
      }),
    );
  }

  /** Submits nothing more and waits for the answers that are outstanding; throws what a producer itself failed of. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#loops);
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure;
  }

  /** While on, everybody submits as fast as it goes: large messages first, smaller ones with each rejection. */
  flood(on: boolean): void {
    this.#floodBytes = on ? FLOOD_BYTES : 0;
  }

  /** A producer itself has failed: the run cannot go on. */
  get failed(): boolean {
    return this.#failure !== undefined;
  }

  get #done(): boolean {
    return this.#stopped || this.#options.signal.aborted;
  }

  async #loop(producer: number): Promise<void> {
    const { ports } = this.#options;
    let number = 0;
    for (let turn = 0; !this.#done; turn++) {
      const port = ports[(producer + turn) % ports.length] ?? 0;
      const connection = await this.#connect(port);
      if (connection === undefined) {
        await delay(RETRY_MS);
        continue;
      }
      number = await this.#use(connection, producer, number);
      await connection.close();
    }
  }

  async #connect(port: number): Promise<Producer | undefined> {
    try {
      return await this.#options.protocol.connect(port, { timeoutMs: CONNECT_TIMEOUT_MS });
    } catch {
      return undefined;
    }
  }

  /** Submits over one connection until it is of no use or old; returns the number of the next message. */
  async #use(connection: Producer, producer: number, firstNumber: number): Promise<number> {
    const under = new Set<Promise<void>>();
    let number = firstNumber;
    const last = firstNumber + MESSAGES_PER_CONNECTION;
    while (!this.#done && connection.usable() && number < last) {
      if (under.size >= this.#options.depth) {
        await Promise.race(under);
        continue;
      }
      if (!(await this.#room())) break;
      const task = this.#submit(connection, producer, number++);
      under.add(task);
      const forget = () => void under.delete(task);
      task.then(forget, forget);
    }
    await Promise.all(under);
    return number;
  }

  async #submit(connection: Producer, producer: number, number: number): Promise<void> {
    const { run, round, random, ledger, protocol } = this.#options;
    const id = `${round}-${producer}-${number}`;
    const own = random.fork(`producer-${producer}`).fork(`message-${number}`);
    const envelope = protocol.name === 'smtp';
    const { message, hangUp } = stepOf({ run, id, envelope, floodBytes: this.#floodBytes }, own);
    ledger.submitted(message, producer);
    const answer = await connection.submit(message, hangUp === undefined ? {} : { hangUp });
    ledger.answered(message.id, answer);
    // Who is told that there is no room does not ask again at once.
    if (answer.outcome !== 'rejected') return;
    if (this.#floodBytes > 1) this.#floodBytes = Math.ceil(this.#floodBytes / 2);
    await delay(REJECTED_REST_MS);
  }

  /**
   * Waits until the target holds less than it may, or a little while: there must be something under way at any crash,
   * also while receivers are held back. False when there is no reason to go on.
   */
  async #room(): Promise<boolean> {
    const { ledger, signal } = this.#options;
    const { tally } = ledger;
    const fits = () =>
      this.#done ||
      this.#floodBytes > 0 ||
      (tally.outstanding + tally.inFlight < BACKLOG_MESSAGES && tally.backlogBytes < BACKLOG_BYTES);
    await ledger.when(fits, TRICKLE_MS, signal);
    return !this.#done;
  }
}
