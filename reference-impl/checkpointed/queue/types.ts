import type { Message } from '../memory/message-list.js';

/** A message that a producer submits. */
export interface NewMessage {
  id: string;
  body: Buffer;
  /** Name of the queue. undefined: one of the default queues, by the producer part of the id. */
  queue?: string | undefined;
}

/** A message that a receiver holds. The front passes this object to consume the message or to give it back. */
export interface TakenMessage {
  readonly id: string;
  readonly body: Buffer;
}

/** One transaction: it is committed as a whole, or not at all. */
export interface Change {
  puts: readonly NewMessage[];
  consumed: readonly TakenMessage[];
}

/** Why a transaction was rejected: nothing of it is stored, now or later. */
export type RejectionReason = 'full' | 'too-large' | 'no-such-queue' | 'not-taken';

export interface Rejection {
  outcome: 'rejected';
  reason: RejectionReason;
  /** What was found, and what was expected. */
  detail: string;
}

export type CommitOutcome = { outcome: 'committed' } | Rejection;

/** Makes the outcome of a rejected transaction. */
export function rejected(reason: RejectionReason, detail: string): Rejection {
  return { outcome: 'rejected', reason, detail };
}

/** A message that is taken, and the queue that it is from. */
export interface Held extends TakenMessage {
  readonly queue: number;
  readonly message: Message;
}
