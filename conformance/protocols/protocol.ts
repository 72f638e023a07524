import type { Outcome } from '../history/events.js';
import type { Address } from './address.js';
import type { BodyContent } from './forged-record.js';
import type { Message } from './message.js';
import type { ProtocolName } from './protocol-names.js';

/** Outcome of a submit. */
export interface Answer {
  outcome: Outcome;
  /** The answer of the target, or the error of the connection; one line. */
  detail: string;
}

/**
 * Point at which a producer hangs up on purpose: before the data of the message, in the middle of it, or after
 * it and before the answer. The outcome is then always indefinite.
 */
export type HangUp = 'before-data' | 'in-data' | 'before-answer';

/** One connection of a producer. */
export interface Producer {
  /**
   * Submits a message and resolves to the outcome; never rejects. Several submits may be under way at once; the
   * connection sends them in order.
   */
  submit(message: Message, options?: { hangUp?: HangUp }): Promise<Answer>;
  /** Returns false once the connection cannot be used: hung up, broken, or shut down by the target. */
  usable(): boolean;
  /** Closes the connection in order. May be called twice. */
  close(): Promise<void>;
}

/** Reply of the receiver to a delivery. The default is to accept at once. */
export interface DeliveryReply {
  /**
   * Smtp: 250, 451, 421 or 550 after the data. Protocols in which the receiver asks for messages: every answer
   * but `accept` gives the message back.
   */
  answer: 'accept' | 'later' | 'go-away' | 'never';
  /** Delay before the answer, in milliseconds. */
  delayMs: number;
  /** True: the receiver answers even while it holds its answers back. Only a receiver to which the target connects can do that. */
  evenHeld?: boolean;
}

/** A complete message that the receiver got; see the event `delivered`. */
export interface ReceivedMessage {
  id: string | null;
  sizeBytes: number;
  digest: string;
  recipients: number[];
  /** The delivered bytes, if they are not an intact message. */
  bytes?: Buffer;
  /** Description of the difference from the submitted message. */
  difference?: string;
  /** Node that delivered the message. Absent for a target without `nodes`. */
  node?: string;
}

/**
 * Interface by which a receiver reports that it got, accepted or refused a message, and whether the target
 * knows of an acceptance. `recordReceipts` writes these reports into a history.
 */
export interface Receipts {
  /**
   * Reports a complete message that the receiver got, and returns the sequence number of this delivery. `id`
   * is null if the message carries no readable id, or the id of another run.
   */
  delivered(what: ReceivedMessage): number;
  consumed(sequence: number, id: string | null, how: 'answered' | 'unanswered' | 'accepted'): void;
  refused(sequence: number, id: string | null, permanent: boolean, detail: string): void;
  settled(sequences: number[], how: 'known' | 'broken'): void;
}

/** Options of a receiver. */
export interface ReceiverOptions {
  /** Id of the run. Messages of other runs are reported without an id. */
  run: string;
  receipts: Receipts;
  /** Returns the reply to the n-th delivery (from 1) of an id. It must be pure or seeded. Default: accept. */
  replyFor?: (id: string | null, delivery: number) => DeliveryReply;
  /**
   * Protocols in which the target sends the messages: number of deliveries per session that the target may
   * leave unrecorded (`guarantee.inDeliveryPerSession`).
   */
  inDeliveryPerSession?: number;
  /** What a mail server may do with a message (`guarantee.headers`). Default: unchanged. */
  headers?: 'unchanged' | 'may-be-completed' | undefined;
  /**
   * True if the target claims an order (`guarantee.order`): a receiver that opens connections has one per address, and takes
   * one message at a time. Deliveries over two connections would race, and seem out of order. Default: false.
   */
  inOrder?: boolean;
  /** Returns true if this run has submitted a message with this id. Default: any id may have been submitted. */
  wasSubmitted?: (id: string) => boolean;
}

/** The receiving side of a run. It survives every restart of the target. */
export interface Receiver {
  /** Address `host:port` that replaces `{sink}`; '' for protocols in which the receiver asks for messages. */
  readonly sink: string;
  /**
   * Returns the number of deliveries that were not refused and that the target has not proven to have recorded.
   */
  inDelivery(): number;
  /** Stops accepting and fetching until `release`. Deliveries under way stay unanswered. */
  hold(): void;
  release(): void;
  close(): Promise<void>;
}

/** What a target must have before it counts as ready. */
export interface ReadyOptions {
  /** Number of nodes that must keep each message. Default: 1. */
  replicas?: number;
}

/** Protocol by which messages are submitted to a target and received from it. */
export interface Protocol {
  readonly name: ProtocolName;
  /** What the protocol can carry in the body of a message. Default: `binary`. */
  readonly content?: BodyContent;
  /**
   * Opens a producer's connection to an address to which messages are submitted.
   * @throws KitError target-unavailable when the target does not accept connections; then nothing was submitted.
   */
  connect(address: Address, options?: { timeoutMs?: number }): Promise<Producer>;
  /** Tries once whether the target at this address reports that it is ready. Never rejects. */
  ready(address: Address, timeoutMs: number, options?: ReadyOptions): Promise<boolean>;
  /**
   * Starts the receiving side. Messages are submitted to `addresses`; only protocols in which the receiver opens
   * connections use them. It opens connections to each address, also of a node that has no messages for it.
   */
  receive(addresses: readonly Address[], options: ReceiverOptions): Promise<Receiver>;
}
