import type { EnqueueOutcome } from '../queue/types.js';
import type { Body } from '../record/body.js';

/** What its producer knows of a message. `indefinite` also means: not answered, and never will be. */
type SubmitOutcome = 'pending' | 'confirmed' | 'rejected' | 'indefinite';

interface Message {
  id: number;
  body: Body;
  outcome: SubmitOutcome;
  /** `maybe`: a crash came in between, or took the note of it with it; it may come again or not. */
  consumed: 'no' | 'maybe' | 'yes';
  /** The machine's moment at which its consumption was answered. */
  consumedAt: number;
  /** Has an index sync that began after that been completed? */
  vouched: boolean;
  /** The living worker that has taken it. */
  holder: string | undefined;
}

/** All bytes twice, so that a message may begin with any. */
const FILLER = Buffer.from(Array.from({ length: 512 }, (_, n) => n % 256));

/** A message whose bytes say which it is, and are all told by that. */
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

/** All that producers and receivers know, and what follows from it for the queue (DESIGN 4.5). */
export class Model {
  readonly #messages: Message[] = [];

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

  recordOutcome(ids: readonly number[], { outcome }: EnqueueOutcome): void {
    for (const id of ids) this.#message(id).outcome = outcome;
  }

  get confirmed(): number {
    return this.#messages.filter(({ outcome: fate }) => fate === 'confirmed').length;
  }

  /** Ids of messages that were confirmed, were not consumed, and are not with a living worker. */
  waiting(): number[] {
    return this.#messages
      .filter(({ outcome: fate, consumed, holder }) => fate === 'confirmed' && consumed === 'no' && !holder)
      .map(({ id }) => id);
  }

  #message(id: number): Message {
    const message = this.#messages[id];
    if (!message) throw new Violation('PP-6', `message ${id} was never submitted`);
    return message;
  }

  /**
   * Which message is this? @param power whether it is looked at after a power cut that is not yet `crash`ed.
   * @throws Violation when it should not be there.
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

  /** A worker has taken it for delivery. */
  take(body: Body, worker: string): number {
    const id = this.identify(body);
    const message = this.#message(id);
    if (message.holder) {
      throw new Violation('PP-2', `m${id} is delivered by ${worker} while ${message.holder} has it`);
    }
    message.holder = worker;
    return id;
  }

  /** Its receiver has accepted it, and the queue is told: from here on its end is open until the queue answers. */
  beginConsume(id: number): void {
    this.#message(id).consumed = 'maybe';
  }

  endConsume(id: number, moment: number): void {
    Object.assign(this.#message(id), {
      consumed: 'yes',
      consumedAt: moment,
      vouched: false,
      holder: undefined,
    });
  }

  unlock(id: number): void {
    this.#message(id).holder = undefined;
  }

  /** The index is on the medium as it was at a moment. */
  vouch(since: number): void {
    for (const message of this.#messages) {
      if (message.consumed === 'yes' && message.consumedAt < since) message.vouched = true;
    }
  }

  /** The first message that was consumed and that no index sync vouches for. */
  unvouched(): number | undefined {
    return this.#messages.find(({ consumed, vouched }) => consumed === 'yes' && !vouched)?.id;
  }

  /** The index was damaged: nothing that is noted there counts any more. */
  indexDamaged(): void {
    for (const message of this.#messages) {
      if (message.consumed === 'yes') message.consumed = 'maybe';
    }
  }

  /** A worker died, with these submits unanswered. */
  workerDied(worker: string, unanswered: readonly number[]): void {
    for (const id of unanswered) this.#message(id).outcome = 'indefinite';
    for (const message of this.#messages) if (message.holder === worker) message.holder = undefined;
  }

  /** The power was cut: consumptions that no index sync vouches for may be forgotten [0018]. */
  powerCut(): void {
    for (const message of this.#messages) {
      if (message.consumed === 'yes' && !message.vouched) message.consumed = 'maybe';
    }
  }

  /** Holds what a restored queue has in it against what must and may be there. */
  check(present: ReadonlySet<number>): void {
    const lost = this.#messages.find(
      ({ id, outcome: fate, consumed }) => fate === 'confirmed' && consumed === 'no' && !present.has(id),
    );
    if (lost) throw new Violation('PP-1', `m${lost.id} was confirmed, and after the restore it is gone`);
  }

  /** The restore has synced the index: what it took for consumed stays so. */
  restored(present: ReadonlySet<number>): void {
    for (const message of this.#messages) {
      if (message.consumed !== 'maybe') continue;
      if (present.has(message.id)) message.consumed = 'no';
      else Object.assign(message, { consumed: 'yes', vouched: true });
    }
  }
}

/** The requirements of the contract that the simulation can see broken, by their numbers there. */
export type Requirement = 'PP-1' | 'PP-2' | 'PP-3' | 'PP-4' | 'PP-6' | 'PP-9' | 'PP-10';

/** What a simulated run has shown to be wrong. */
export class Violation extends Error {
  override readonly name = 'Violation';
  readonly requirement: Requirement;

  constructor(requirement: Requirement, what: string) {
    super(what);
    this.requirement = requirement;
  }
}
