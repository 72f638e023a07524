import { setTimeout as delay } from 'node:timers/promises';
import type { Address } from '../../../conformance/protocols/address.js';
import type { Producer, Protocol } from '../../../conformance/protocols/protocol.js';
import type { Random } from '../../../faults/fault.js';
import type { Ledger } from './ledger.js';
import { FLOOD_BYTES, planSubmission } from './messages.js';

/** Parts of a round that the producers use. */
export interface ProducersOptions {
  run: string;
  round: number;
  protocol: Protocol;
  /** Addresses to which messages are submitted: the producers take turns. */
  addresses: readonly Address[];
  ledger: Ledger;
  random: Random;
  count: number;
  /** Upper bound of the messages that are in flight on one connection. */
  depth: number;
  /**
   * True if the target claims an order (`guarantee.order`): a producer uses one address, and submits a message only
   * after the answer to the previous one. Otherwise the order of its submits would be unknown.
   */
  inOrder: boolean;
  signal: AbortSignal;
}

/**
 * Upper bound of the messages that a target holds outside a flood, because the run must be able to drain in a
 * few seconds.
 */
const MAX_BACKLOG_MESSAGES = 250;
/** Upper bound of the bytes of the messages that a target holds outside a flood; see MAX_BACKLOG_MESSAGES. */
const MAX_BACKLOG_BYTES = 12 * 1024 * 1024;
const BACKLOG_WAIT_MS = 100;
/**
 * The bound of messages for a cluster, which syncs each step of a message on several nodes: its drain takes several times as
 * long.
 */
const MAX_CLUSTER_BACKLOG_MESSAGES = 120;
/** Wait between two messages of a producer while a cluster holds twice as many messages: a long fault must not pile them up. */
const LONG_BACKLOG_WAIT_MS = 400;
const CONNECT_TIMEOUT_MS = 2000;
const CONNECT_RETRY_MS = 15;
const REJECTED_BACKOFF_MS = 20;
const MESSAGES_PER_CONNECTION = 40;

/** One connection of a producer. */
interface Session {
  readonly connection: Producer;
  /** Node to which it leads; undefined for a target without `nodes`. */
  readonly node: string | undefined;
  hasRejected: boolean;
}

/**
 * Several producers. Each submits at its own pace, whatever happens to the target, until they are stopped.
 */
export class Producers {
  #floodBytes = 0;
  readonly #options: ProducersOptions;
  readonly #loops: Promise<void>[];
  #failure: unknown;
  #stopped = false;

  constructor(options: ProducersOptions) {
    this.#options = options;
    this.#loops = Array.from({ length: options.count }, (_, producer) =>
      this.#submitLoop(producer).catch((error: unknown) => {
        this.#failure ??= error;
        this.#stopped = true;
      }),
    );
  }

  /**
   * Stops submitting and waits for the outstanding answers.
   * @throws the error with which a producer itself failed.
   */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#loops);
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure;
  }

  /**
   * Switches a flood on or off. In a flood every producer submits as fast as it can, smaller messages after
   * each rejection.
   */
  flood(on: boolean): void {
    this.#floodBytes = on ? FLOOD_BYTES : 0;
  }

  /** True when a producer itself has failed: the run cannot go on. */
  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  get #isDone(): boolean {
    return this.#stopped || this.#options.signal.aborted;
  }

  async #submitLoop(producer: number): Promise<void> {
    const { addresses, inOrder } = this.#options;
    let number = 0;
    let turn = producer;
    while (!this.#isDone) {
      const address = addresses[turn % addresses.length];
      if (address === undefined) throw new Error('expected an address for the producers');
      const connection = await this.#connect(address);
      let hasRefused = connection === undefined;
      if (connection === undefined) await delay(CONNECT_RETRY_MS);
      else {
        const session: Session = { connection, node: address.node, hasRejected: false };
        number = await this.#submitOver(session, producer, number);
        hasRefused = session.hasRejected || !connection.usable();
        await connection.close();
      }
      // With a claimed order a producer keeps its address, unless a node has stopped taking messages.
      if (!inOrder || (hasRefused && address.node !== undefined)) turn += 1;
    }
  }

  async #connect(address: Address): Promise<Producer | undefined> {
    try {
      return await this.#options.protocol.connect(address, { timeoutMs: CONNECT_TIMEOUT_MS });
    } catch {
      return undefined;
    }
  }

  /**
   * Submits over one connection until it is unusable or old, or a node has rejected a message: another one may be the
   * leader.
   * @returns the number of the next message.
   */
  async #submitOver(session: Session, producer: number, firstNumber: number): Promise<number> {
    const { connection, node } = session;
    const mayGoOn = () => connection.usable() && !(session.hasRejected && node !== undefined);
    const pending = new Set<Promise<void>>();
    const depth = this.#options.inOrder ? 1 : this.#options.depth;
    let number = firstNumber;
    const last = firstNumber + MESSAGES_PER_CONNECTION;
    while (!this.#isDone && mayGoOn() && number < last) {
      if (pending.size >= depth) {
        await Promise.race(pending);
        continue;
      }
      if (!(await this.#waitForBacklogSpace())) break;
      const task = this.#submit(session, producer, number++);
      pending.add(task);
      const forget = () => void pending.delete(task);
      task.then(forget, forget);
    }
    await Promise.all(pending);
    return number;
  }

  async #submit(session: Session, producer: number, number: number): Promise<void> {
    const { run, round, random, ledger, protocol } = this.#options;
    const id = `${round}-${producer}-${number}`;
    const { content } = protocol;
    const context = { run, id, envelope: protocol.name === 'smtp', content, floodBytes: this.#floodBytes };
    // Equal generators make equal messages.
    const plan = () => planSubmission(context, random.fork(`producer-${producer}`).fork(`message-${number}`));
    const { message, hangUp } = plan();
    ledger.submitted(message, producer, () => plan().message.bytes);
    const answer = await session.connection.submit(message, hangUp === undefined ? {} : { hangUp });
    ledger.answered(message.id, answer, session.node);
    // Pause after a rejection: the target has no free space and would reject the next message too.
    if (answer.outcome !== 'rejected') return;
    session.hasRejected = true;
    if (this.#floodBytes > 1) this.#floodBytes = Math.ceil(this.#floodBytes / 2);
    await delay(REJECTED_BACKOFF_MS);
  }

  /**
   * Waits until the target holds less than the upper bounds, for a short time. Then the producer
   * submits nevertheless: some message must be under way at any crash, also while receivers are held back.
   * @returns false when the producers are stopped.
   */
  async #waitForBacklogSpace(): Promise<boolean> {
    const { ledger, signal, addresses } = this.#options;
    const { tally } = ledger;
    const isCluster = addresses.some(({ node }) => node !== undefined);
    const limit = isCluster ? MAX_CLUSTER_BACKLOG_MESSAGES : MAX_BACKLOG_MESSAGES;
    const held = () => tally.outstanding + tally.inFlight;
    const fits = () =>
      this.#isDone || this.#floodBytes > 0 || (held() < limit && tally.backlogBytes < MAX_BACKLOG_BYTES);
    const waitMs = isCluster && held() >= 2 * limit ? LONG_BACKLOG_WAIT_MS : BACKLOG_WAIT_MS;
    await ledger.waitUntil(fits, waitMs, signal);
    return !this.#isDone;
  }
}
