import type { Outcome } from '../history/events.js';
import type { Message } from './message.js';
import type { ProtocolName } from './protocol-names.js';

/** What the target said of a submitted message. */
export interface Answer {
  outcome: Outcome;
  /** The target's own words, or the error of the connection; one line. */
  detail: string;
}

/**
 * Where a producer hangs up on purpose: before the message's data, in the middle of it, or after all of it without
 * waiting for the answer. The outcome is then indefinite, whatever the target does.
 */
export type HangUp = 'before-data' | 'in-data' | 'before-answer';

/** One connection of a producer. */
export interface Producer {
  /**
   * Hands a message over and resolves to what the target said; never rejects. Several may be under way at once
   * (the connection pipelines them in order).
   */
  submit(message: Message, options?: { hangUp?: HangUp }): Promise<Answer>;
  /** False once the connection is of no use: hung up, broken, or shut down by the target. */
  usable(): boolean;
  /** Ends the connection in order; may be called twice. */
  close(): Promise<void>;
}

/** What the receiver makes of a delivery; the default is to accept at once. */
export interface DeliveryReply {
  /** smtp: 250, 451, 421, 550 to the data. Where messages are pulled all but `accept` give the message back. */
  answer: 'accept' | 'later' | 'go-away' | 'never';
  /** So long the answer is held back. */
  delayMs: number;
}

/** Where the receiver reports what it saw; `recordReceipts` writes it into a history. */
export interface Receipts {
  /** A whole message came; returns its sequence number. `id` is null when none of this run could be read from it. */
  delivered(what: { id: string | null; sizeBytes: number; digest: string; recipients: number[] }): number;
  consumed(sequence: number, id: string | null, how: 'answered' | 'unanswered' | 'accepted'): void;
  refused(sequence: number, id: string | null, permanent: boolean, detail: string): void;
  settled(sequences: number[], how: 'known' | 'broken'): void;
}

export interface ReceiverOptions {
  /** Id of the run; messages of other runs are nobody's. */
  run: string;
  receipts: Receipts;
  /** What to answer to the n-th delivery (from 1) of an id; a pure or seeded function. Default: accept. */
  replyFor?: (id: string | null, delivery: number) => DeliveryReply;
  /** Push: see `guarantee.inDeliveryPerSession`. */
  inDeliveryPerSession?: number;
}

/** The receiving side of a run. It outlives every restart of the target. */
export interface Receiver {
  /** host:port for `{sink}`; '' when the protocol pulls. */
  readonly sink: string;
  /** Deliveries that were not refused and of which the target has not shown that it has recorded them. */
  inDelivery(): number;
  /** Accepts and fetches nothing more until `release` (deliveries under way stay unanswered). */
  hold(): void;
  release(): void;
  close(): Promise<void>;
}

/** How messages go in and come out of a target. */
export interface Protocol {
  readonly name: ProtocolName;
  /**
   * One producer's connection to a submit port.
   * @throws KitError target-unavailable when the target does not take connections; nothing was submitted then.
   */
  connect(port: number, options?: { timeoutMs?: number }): Promise<Producer>;
  /** One try: does the target at this port say that it is ready? Never rejects. */
  ready(port: number, timeoutMs: number): Promise<boolean>;
  /** Starts the receiving side. `ports`: the submit ports, for protocols that pull. */
  receive(ports: readonly number[], options: ReceiverOptions): Promise<Receiver>;
}
