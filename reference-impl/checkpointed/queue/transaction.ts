import { QueueError } from '../../common/platform/errors.js';
import type { Change, CommitOutcome, NewMessage, TakenMessage } from './types.js';

/** The queues of a transaction. */
export interface TransactionStore {
  take(queue?: string): TakenMessage | undefined;
  putBack(taken: TakenMessage): void;
  commit(change: Change): Promise<CommitOutcome>;
}

/**
 * A transaction: puts and takes that are staged privately. Before the commit no receiver sees a put. No other receiver gets a
 * taken message, which stays in the contents of its queue until the commit.
 */
export class Transaction {
  readonly #queue: TransactionStore;
  readonly #puts: NewMessage[] = [];
  #taken: TakenMessage[] = [];
  #isEnded = false;

  constructor(queue: TransactionStore) {
    this.#queue = queue;
  }

  /** Stages a message. @param queue name of the queue; undefined: a default queue. */
  put(id: string, body: Buffer, queue?: string): void {
    this.#check();
    this.#puts.push({ id, body, queue });
  }

  /** Takes the next message that is ready. The commit consumes it. */
  take(queue?: string): TakenMessage | undefined {
    this.#check();
    const taken = this.#queue.take(queue);
    if (taken !== undefined) this.#taken.push(taken);
    return taken;
  }

  /**
   * Commits all of the transaction. After a rejection nothing has happened, and the taken messages are ready again.
   * @throws the failure of the queue. It is then unknown whether the next recovery will find the transaction.
   */
  async commit(): Promise<CommitOutcome> {
    this.#check();
    this.#isEnded = true;
    const result = await this.#queue.commit({ puts: this.#puts, consumed: this.#taken });
    if (result.outcome === 'rejected') this.#giveBack();
    return result;
  }

  /** Ends the transaction without effect. */
  rollback(): void {
    this.#check();
    this.#isEnded = true;
    this.#giveBack();
  }

  #giveBack(): void {
    for (const taken of this.#taken) this.#queue.putBack(taken);
    this.#taken = [];
  }

  #check(): void {
    if (this.#isEnded) throw new QueueError('assertion', 'a transaction is used after its end');
  }
}
