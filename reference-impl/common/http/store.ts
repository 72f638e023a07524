/** A message that the front holds for a receiver. The store made it; the front only passes it back. */
export interface TakenMessage {
  /** Id that the producer gave to the message. */
  readonly id: string;
  readonly body: Buffer;
}

/** A message that a transaction puts into a queue. */
export interface NewMessage {
  /** Id that the producer gave to the message: 1 to 200 bytes of `A-Z a-z 0-9 . _ ~ : @ + = , -`. */
  readonly id: string;
  readonly body: Buffer;
  /** Name of the queue; undefined: the store chooses. */
  readonly queue?: string | undefined;
}

/** Outcome of a transaction. `detail` is one line for the producer: what was rejected, and what was expected. */
export type CommitOutcome =
  | { outcome: 'committed' }
  | { outcome: 'rejected'; reason: 'full' | 'too-large' | 'no-such-queue' | 'not-taken'; detail: string };

/** Description of a queue for clients. */
export interface QueueInfo {
  name: string;
  /** Number of messages that are stored, with those in delivery. */
  messages: number;
  /** Number of messages that are taken and not consumed. */
  inDelivery: number;
  /** Size of all messages in bytes, as the store counts it: with or without what it needs around a body. */
  bytes: number;
  definition: Record<string, string | number>;
}

/**
 * A queue of messages, as the HTTP front uses it. Every implementation of a queue provides one. The front calls its
 * methods from one thread.
 */
export interface MessageStore {
  /**
   * Commits one transaction: all of it or nothing. Resolves after it is durable, or when it was rejected and has changed
   * nothing. Rejects when the outcome is unknown: the front then answers 500 (indefinite), and gives the messages in
   * `consumed` back to nobody.
   */
  commit(change: { puts: readonly NewMessage[]; consumed: readonly TakenMessage[] }): Promise<CommitOutcome>;
  /** Takes the next message that is ready, for one receiver. undefined when none is. */
  take(queue?: string): TakenMessage | undefined;
  /** Gives a taken message back: it becomes ready again at its old place. */
  putBack(message: TakenMessage): void;
  /** Calls back whenever a message may have become ready. The front takes none before the call has returned. */
  onReady(callback: () => void): void;
  /** Returns all queues, in the order of their names. */
  queues(): QueueInfo[];
  /** Creates a queue. Resolves after it is durable. */
  createQueue(
    name: string,
    definition: Record<string, string | number>,
  ): Promise<'created' | 'exists' | 'rejected'>;
  /** Replaces the definition of a queue. Resolves after it is durable. */
  changeQueue(
    name: string,
    definition: Record<string, string | number>,
  ): Promise<'changed' | 'no-such-queue' | 'rejected'>;
  /** Deletes a queue and its messages. Resolves after it is durable. */
  deleteQueue(name: string): Promise<'deleted' | 'no-such-queue' | 'rejected'>;
  /** Returns counters and states of the store, as JSON values. */
  status(): Record<string, unknown>;
}
