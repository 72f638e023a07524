import { Violation } from '../../common/simulation/violation.js';
import type { EnqueueOutcome } from '../queue/types.js';
import type { Body } from '../record/body.js';

/** The outcome of a submit as its producer knows it. `indefinite` includes submits that will never be answered. */
type SubmitOutcome = 'pending' | 'confirmed' | 'rejected' | 'indefinite';

interface Message {
  id: number;
  body: Body;
  outcome: SubmitOutcome;
  /**
   * `maybe`: the message may be delivered again, because a crash came during its consumption or lost the
   * record of the consumption.
   */
  consumed: 'no' | 'maybe' | 'yes';
  /** Logical time of the machine at which the queue answered the consumption. */
  consumedAt: number;
  /**
   * Whether the index was synced after the consumption: a sync that began after it is complete. A power cut
   * cannot undo the consumption then.
   */
  vouched: boolean;
  /** Name of the living worker that has taken the message. */
  holder: string | undefined;
}

/** All byte values twice, so that the filler of a message can begin with any value. */
const FILLER = Buffer.from(Array.from({ length: 512 }, (_, n) => n % 256));

/** Makes a message whose first bytes give its id and size. All other bytes follow from them. */
function makeBody(id: number, sizeBytes: number): Body {
  const head = `m${id}|${sizeBytes}|`;
  const filler = Buffer.alloc(sizeBytes, FILLER.subarray(id % 256, (id % 256) + 256));
  const data = Buffer.concat([Buffer.from(head), filler]);
  return { type: 'smtp', sender: `s${id}@x`, recipients: [`r${id}@x`], data };
}

const sameBody = (one: Body, other: Body): boolean =>
  one.type === other.type &&
  one.data.equals(other.data) &&
  one.sender === other.sender &&
  one.recipients.join() === other.recipients.join();

/** Everything that producers and receivers know of the messages, and the requirements on the queue that follow. */
export class Model {
  readonly #messages: Message[] = [];

  /** Records a new submit and returns its message. `sizeBytes` is the size of the filler. */
  submit(sizeBytes: number): { id: number; body: Body } {
    const id = this.#messages.length;
    const message: Message = {
      id,
      body: makeBody(id, sizeBytes),
      outcome: 'pending',
      consumed: 'no',
      consumedAt: 0,
      vouched: false,
      holder: undefined,
    };
    this.#messages.push(message);
    return message;
  }

  /** Records the outcome that the queue returned for a submit. */
  recordOutcome(ids: readonly number[], { outcome }: EnqueueOutcome): void {
    for (const id of ids) this.#message(id).outcome = outcome;
  }

  /** Number of messages that were confirmed. */
  get confirmed(): number {
    return this.#messages.filter(({ outcome }) => outcome === 'confirmed').length;
  }

  /** Returns the ids of messages that were confirmed, were not consumed, and are held by no living worker. */
  waiting(): number[] {
    return this.#messages
      .filter(({ outcome, consumed, holder }) => outcome === 'confirmed' && consumed === 'no' && !holder)
      .map(({ id }) => id);
  }

  #message(id: number): Message {
    const message = this.#messages[id];
    if (!message) throw new Violation('PP-6', `message ${id} was never submitted`);
    return message;
  }

  /**
   * Returns the id of a delivered or restored message.
   * @param power whether the body comes from a crash state after a power cut that `powerCut` has not recorded
   * @throws Violation when the message must not be in the queue
   */
  identify(body: Body, power = false): number {
    const text = JSON.stringify(body.data.toString('latin1', 0, 16));
    const id = /^"m(\d+)\|/.exec(text)?.[1];
    if (id === undefined || !this.#messages[Number(id)]) {
      throw new Violation('PP-6', `${text} is delivered and was never submitted`);
    }
    const message = this.#message(Number(id));
    if (!sameBody(body, message.body)) throw new Violation('PP-4', `m${id} is delivered with other bytes`);
    if (message.outcome === 'rejected') throw new Violation('PP-3', `m${id} was rejected and is delivered`);
    const noted = message.consumed === 'yes' && !(power && !message.vouched);
    if (noted) throw new Violation('PP-2', `m${id} was consumed and is delivered again`);
    return message.id;
  }

  /** Records that a worker has taken a message for delivery. @returns the id of the message */
  take(body: Body, worker: string): number {
    const id = this.identify(body);
    const message = this.#message(id);
    if (message.holder) {
      throw new Violation('PP-2', `m${id} is delivered by ${worker} while ${message.holder} has it`);
    }
    message.holder = worker;
    return id;
  }

  /** Records that consumption has begun. Until the queue answers, a crash may keep or undo the consumption. */
  beginConsume(id: number): void {
    this.#message(id).consumed = 'maybe';
  }

  /** Records that the queue has answered the consumption, at a logical time of the machine. */
  endConsume(id: number, moment: number): void {
    Object.assign(this.#message(id), {
      consumed: 'yes',
      consumedAt: moment,
      vouched: false,
      holder: undefined,
    });
  }

  /** Records that the worker no longer holds the message. */
  unlock(id: number): void {
    this.#message(id).holder = undefined;
  }

  /** Records that an index sync is complete. The medium has the index as of the logical time `since`. */
  vouch(since: number): void {
    for (const message of this.#messages) {
      if (message.consumed === 'yes' && message.consumedAt < since) message.vouched = true;
    }
  }

  /**
   * Returns the id of the first message, in order of submit, whose consumption a power cut could still undo:
   * no index sync that began after the consumption is complete. Returns undefined when there is no such
   * message.
   */
  unvouched(): number | undefined {
    return this.#messages.find(({ consumed, vouched }) => consumed === 'yes' && !vouched)?.id;
  }

  /** Records damage to the index: every consumption may be lost. */
  indexDamaged(): void {
    for (const message of this.#messages) {
      if (message.consumed === 'yes') message.consumed = 'maybe';
    }
  }

  /** Records the death of a worker: its unanswered submits become indefinite, and its messages are free. */
  workerDied(worker: string, unanswered: readonly number[]): void {
    for (const id of unanswered) this.#message(id).outcome = 'indefinite';
    for (const message of this.#messages) if (message.holder === worker) message.holder = undefined;
  }

  /** Records a power cut: consumptions that no index sync covers may be lost (patent [0018]). */
  powerCut(): void {
    for (const message of this.#messages) {
      if (message.consumed === 'yes' && !message.vouched) message.consumed = 'maybe';
    }
  }

  /** Checks that a restored queue holds every message that it must hold. @throws Violation when one is lost */
  check(present: ReadonlySet<number>): void {
    const lost = this.#messages.find(
      ({ id, outcome, consumed }) => outcome === 'confirmed' && consumed === 'no' && !present.has(id),
    );
    if (lost) throw new Violation('PP-1', `m${lost.id} was confirmed, and after the restore it is gone`);
  }

  /** Records a restore, which has synced the index: messages that it treats as consumed stay consumed. */
  restored(present: ReadonlySet<number>): void {
    for (const message of this.#messages) {
      if (message.consumed !== 'maybe') continue;
      if (present.has(message.id)) message.consumed = 'no';
      else Object.assign(message, { consumed: 'yes', vouched: true });
    }
  }
}
