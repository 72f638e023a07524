import { Violation } from '../../common/simulation/violation.js';
import { makeBody } from './bodies.js';

/**
 * The outcome of a transaction as its client knows it. `indefinite`: no answer will come, and either is possible. `absent`: a
 * recovery has shown that it never happened.
 */
type Outcome = 'pending' | 'confirmed' | 'rejected' | 'indefinite' | 'absent';

/** The order in which a queue delivers. */
export type Order = 'strict' | 'relaxed';

/** A transaction, also one that creates, changes or deletes a queue. */
export interface ModelTransaction {
  id: number;
  outcome: Outcome;
  puts: ModelMessage[];
  consumed: ModelMessage[];
}

/** A message. Its number gives the commit order: transactions commit in the order in which they were begun. */
export interface ModelMessage {
  number: number;
  body: Buffer;
  queue: ModelQueue | undefined;
  put: ModelTransaction;
  consumed: ModelTransaction | undefined;
  isHeld: boolean;
}

/** A queue from its creation to its deletion. A later queue of the same name is another one. */
export interface ModelQueue {
  name: string;
  created: ModelTransaction;
  deleted: ModelTransaction | undefined;
  /** The definitions that the queue may have, oldest first. The first is the newest that is confirmed. */
  orders: { order: Order; by: ModelTransaction }[];
}

/** A queue as a recovery has made it, with its messages in order. */
export interface FoundQueue {
  name: string;
  order: Order;
  messages: { id: string; body: Buffer }[];
}

const isOpen = ({ outcome }: ModelTransaction): boolean => outcome === 'pending' || outcome === 'indefinite';
/** Returns whether the transaction cannot have happened. */
const isUndone = ({ outcome }: ModelTransaction): boolean => outcome === 'rejected' || outcome === 'absent';

/** Everything that producers and receivers know, and the requirements on the queue that follow. */
export class Model {
  readonly #transactions: ModelTransaction[] = [];
  readonly #messages: ModelMessage[] = [];
  #queues: ModelQueue[] = [];
  /** Number of messages that were confirmed. */
  confirmed = 0;
  /**
   * Whether a recovery has decided that a deletion without an answer has happened. The log may not have it, and the control
   * record alone knows of it then.
   */
  hasDecidedDeletion = false;

  #begin(): ModelTransaction {
    const transaction: ModelTransaction = {
      id: this.#transactions.length,
      outcome: 'pending',
      puts: [],
      consumed: [],
    };
    this.#transactions.push(transaction);
    return transaction;
  }

  /** Records a queue that is there from the start. */
  installed(name: string, order: Order): void {
    const created = this.#begin();
    created.outcome = 'confirmed';
    this.#queues.push({ name, created, deleted: undefined, orders: [{ order, by: created }] });
  }

  /** Returns the queue that may have this name now. */
  queue(name: string): ModelQueue | undefined {
    return this.#queues.findLast(
      (queue) => queue.name === name && !isUndone(queue.created) && queue.deleted?.outcome !== 'confirmed',
    );
  }

  /** Returns whether a creation, change or deletion of this queue is not answered. */
  isChanging({ created, deleted, orders }: ModelQueue): boolean {
    return (
      isOpen(created) || (deleted !== undefined && isOpen(deleted)) || orders.some(({ by }) => isOpen(by))
    );
  }

  /** Records a transaction that is about to be committed. */
  commit(
    puts: readonly { queue: string; sizeBytes: number }[],
    consumed: readonly ModelMessage[],
  ): ModelTransaction {
    const transaction = this.#begin();
    for (const { queue, sizeBytes } of puts) {
      const number = this.#messages.length;
      const message: ModelMessage = {
        number,
        body: makeBody(number, sizeBytes),
        queue: this.queue(queue),
        put: transaction,
        consumed: undefined,
        isHeld: false,
      };
      this.#messages.push(message);
      transaction.puts.push(message);
    }
    for (const message of consumed) {
      message.consumed = transaction;
      transaction.consumed.push(message);
    }
    return transaction;
  }

  /** Records the creation of a queue that is about to be committed. */
  create(name: string, order: Order): ModelTransaction {
    const created = this.#begin();
    this.#queues.push({ name, created, deleted: undefined, orders: [{ order, by: created }] });
    return created;
  }

  /** Records a change of a definition that is about to be committed. */
  change(queue: ModelQueue, order: Order): ModelTransaction {
    const by = this.#begin();
    queue.orders.push({ order, by });
    return by;
  }

  /** Records a deletion that is about to be committed. */
  delete(queue: ModelQueue): ModelTransaction {
    queue.deleted = this.#begin();
    return queue.deleted;
  }

  /** Records the outcome that the queue returned. @throws Violation when it confirms what cannot be */
  answered(transaction: ModelTransaction, outcome: 'confirmed' | 'rejected' | 'indefinite'): void {
    if (transaction.outcome !== 'pending') throw new Error(`transaction ${transaction.id} is answered twice`);
    transaction.outcome = outcome;
    if (outcome === 'rejected') for (const message of transaction.consumed) message.consumed = undefined;
    if (outcome !== 'confirmed') return;
    this.confirmed += transaction.puts.length;
    for (const queue of this.#queues) {
      const at = queue.orders.findIndex(({ by }) => by === transaction);
      if (at > 0) queue.orders = queue.orders.slice(at);
    }
    const homeless = transaction.puts.find(({ queue }) => queue === undefined || isUndone(queue.created));
    if (homeless) throw new Violation('PP-1', `m${homeless.number} is confirmed, and there is no such queue`);
  }

  /** Records the death of the server: what is not answered will never be, and nobody holds a message. */
  serverDied(): void {
    for (const transaction of this.#transactions) {
      if (transaction.outcome === 'pending') transaction.outcome = 'indefinite';
    }
    for (const message of this.#messages) message.isHeld = false;
  }

  #isReady(message: ModelMessage): boolean {
    return message.put.outcome === 'confirmed' && message.consumed === undefined && !message.isHeld;
  }

  /** Returns the messages of a queue that a receiver must be able to take, in order. */
  ready(queue: ModelQueue): ModelMessage[] {
    return this.#messages.filter((message) => message.queue === queue && this.#isReady(message));
  }

  /** Whether a transaction is not answered yet. */
  get isWaiting(): boolean {
    return this.#transactions.some(({ outcome }) => outcome === 'pending');
  }

  /** Whether a deletion is not answered. */
  get isDeleting(): boolean {
    return this.#queues.some(({ deleted }) => deleted !== undefined && isOpen(deleted));
  }

  /** Returns the queues that are there for certain. */
  certainQueues(): ModelQueue[] {
    return this.#queues.filter(
      ({ created, deleted }) =>
        created.outcome === 'confirmed' && (deleted === undefined || isUndone(deleted)),
    );
  }

  /** Returns the message that was delivered or found. @throws Violation when it was never submitted or is changed */
  #identify(id: string, body: Buffer): ModelMessage {
    const number = /^m(\d+)$/.exec(id)?.[1];
    const message = number === undefined ? undefined : this.#messages[Number(number)];
    if (!message)
      throw new Violation('PP-6', `${JSON.stringify(id)} is in the queue and was never submitted`);
    if (!message.body.equals(body)) throw new Violation('PP-4', `${id} is in the queue with other bytes`);
    if (message.put.outcome === 'rejected')
      throw new Violation('PP-3', `${id} was rejected and is in the queue`);
    if (message.put.outcome === 'absent')
      throw new Violation('PP-9', `${id} was gone after a recovery, and is back`);
    if (message.consumed?.outcome === 'confirmed')
      throw new Violation('PP-2', `${id} was consumed and is back`);
    return message;
  }

  /** Records that a receiver has taken a message. @throws Violation when it must not get it, or not yet */
  take(queueName: string | undefined, id: string, body: Buffer): ModelMessage {
    const message = this.#identify(id, body);
    if (message.isHeld || message.consumed)
      throw new Violation('PP-2', `${id} is delivered to two receivers`);
    const { queue } = message;
    if (!queue || (queueName ?? queue.name) !== queue.name)
      throw new Violation('PP-6', `${id} comes out of the queue ${queueName}`);
    if (isOpen(message.put) && message.put.outcome === 'indefinite')
      throw new Violation('PP-3', `${id} is delivered, and its commit has failed`);
    const earlier = this.ready(queue).find(({ number }) => number < message.number);
    if (earlier) throw new Violation('PP-20', `${id} is delivered before m${earlier.number}`);
    message.isHeld = true;
    return message;
  }

  /** Records that a receiver has given a message back. */
  putBack(message: ModelMessage): void {
    message.isHeld = false;
  }

  /** Checks what a recovery has found. @throws Violation */
  check(found: readonly FoundQueue[]): void {
    const present = this.#checkPresent(found);
    for (const message of this.#messages) {
      const { put, consumed, queue, number } = message;
      const mustBeThere =
        put.outcome === 'confirmed' && consumed === undefined && queue?.deleted === undefined;
      if (mustBeThere && !present.has(message))
        throw new Violation('PP-1', `m${number} was confirmed, and after the recovery it is gone`);
    }
    const names = new Set(found.map(({ name }) => name));
    const missing = this.certainQueues().find(({ name }) => !names.has(name));
    if (missing) throw new Violation('PP-9', `the queue ${missing.name} is gone after the recovery`);
    for (const transaction of this.#transactions) this.#checkWhole(transaction, present, names);
  }

  /** Checks everything that is there. @returns it */
  #checkPresent(found: readonly FoundQueue[]): Set<ModelMessage> {
    const present = new Set<ModelMessage>();
    for (const { name, order, messages } of found) {
      const queue = this.queue(name);
      if (!queue)
        throw new Violation('PP-9', `the queue ${name} does not exist, and is there after the recovery`);
      if (!queue.orders.some((one) => one.order === order && !isUndone(one.by)))
        throw new Violation('PP-9', `the queue ${name} has an old definition after the recovery: ${order}`);
      let last = -1;
      for (const { id, body } of messages) {
        const message = this.#identify(id, body);
        if (present.has(message)) throw new Violation('PP-2', `${id} is there twice after the recovery`);
        if (message.queue !== queue)
          throw new Violation('PP-6', `${id} is in another queue after the recovery: ${name}`);
        if (message.number < last)
          throw new Violation(
            'PP-20',
            `after the recovery ${id} is behind m${last}, which was committed later`,
          );
        present.add(message);
        last = message.number;
      }
    }
    return present;
  }

  /** Returns whether an open transaction has happened; undefined when nothing of it can be seen. */
  #hasHappened(
    { puts, consumed }: ModelTransaction,
    present: ReadonlySet<ModelMessage>,
    names: ReadonlySet<string>,
  ): { some: boolean; all: boolean } | undefined {
    const isVisible = ({ queue }: ModelMessage) =>
      queue !== undefined && queue.deleted === undefined && names.has(queue.name);
    const effects = [
      ...puts
        .filter((message) => isVisible(message) && message.consumed === undefined)
        .map((message) => present.has(message)),
      ...consumed.filter(isVisible).map((message) => !present.has(message)),
    ];
    if (effects.length === 0) return undefined;
    return { some: effects.includes(true), all: !effects.includes(false) };
  }

  #checkWhole(
    transaction: ModelTransaction,
    present: ReadonlySet<ModelMessage>,
    names: ReadonlySet<string>,
  ): void {
    if (!isOpen(transaction)) return;
    const happened = this.#hasHappened(transaction, present, names);
    if (happened && happened.some !== happened.all) {
      const parts = [...transaction.puts, ...transaction.consumed].map(({ number }) => `m${number}`);
      throw new Violation(
        'PP-5',
        `half of the transaction of ${parts.join(', ')} is there after the recovery`,
      );
    }
  }

  /** Records a recovery whose server is ready: what it has decided stays. */
  recovered(found: readonly FoundQueue[]): void {
    const present = new Set(
      found.flatMap(({ messages }) => messages.map(({ id }) => this.#messages[Number(id.slice(1))])),
    );
    const names = new Set(found.map(({ name }) => name));
    const isThere = present as ReadonlySet<ModelMessage>;
    for (const queue of this.#queues) {
      if (isOpen(queue.created)) queue.created.outcome = names.has(queue.name) ? 'confirmed' : 'absent';
      if (queue.deleted && isOpen(queue.deleted)) {
        queue.deleted.outcome = names.has(queue.name) ? 'absent' : 'confirmed';
        if (queue.deleted.outcome === 'absent') queue.deleted = undefined;
        else this.hasDecidedDeletion = true;
      }
      const order = found.find(({ name }) => name === queue.name)?.order;
      if (order === undefined || queue !== this.queue(queue.name)) continue;
      const [first] = queue.orders;
      if (first) queue.orders = [{ order, by: queue.created }];
    }
    for (const transaction of this.#transactions) {
      if (!isOpen(transaction)) continue;
      const happened = this.#hasHappened(transaction, isThere, names)?.some ?? false;
      transaction.outcome = happened ? 'confirmed' : 'absent';
      if (!happened) for (const message of transaction.consumed) message.consumed = undefined;
    }
  }
}
