import type { Locked, Queue } from '../../queue/types.js';
import type { Body } from '../../record/body.js';
import { type Backoff, Destination, isDue } from './destination.js';
import { bodyFor, type Envelope, envelopeOf, type Routing } from './routing.js';
import type { OutboundOptions, RecipientResult } from './session.js';

export interface DeliveryOptions extends Omit<OutboundOptions, 'host' | 'port' | 'keepIdleMs'> {
  routing: Routing;
  /** Most sessions at a time to one destination. */
  sessions: number;
  batchMessages: number;
  batchBytes: number;
  retryLimit: number;
  backoff: Backoff;
}

/** A locked message on its way to a destination. */
interface Parcel {
  locked: Locked;
  envelope: Envelope;
  data: Buffer;
}

/** An open session is kept for so long without a message. */
const KEEP_IDLE_MS = 1000;
/** The queue is looked at for messages that have become due, or whose worker died, at least so often. */
const LONGEST_LOOK_MS = 500;
const SHORTEST_LOOK_MS = 20;
/** A destination that finished nothing for so long gives its waiting messages back when others may need the room. */
const STALLED_MS = 1000;

/**
 * Queue processing [0035, 0036]: locks messages in queue order, groups them by destination host with an index in
 * memory, and unlocks, consumes or buries them by what the host says.
 */
export class Delivery {
  readonly #queue: Queue;
  readonly #options: DeliveryOptions;
  readonly #onFailure: (reason: unknown) => void;
  readonly #destinations = new Map<string, Destination<Parcel>>();
  /** All that this worker holds locked. */
  readonly #inHand = new Set<Locked>();
  #inHandBytes = 0;
  #consumed: Locked[] = [];
  #tried: Locked[] = [];
  #settling = false;
  #looking = false;
  #lookAgain = false;
  #timer: NodeJS.Timeout | undefined;
  #stopping = false;
  #whenQuiet: (() => void) | undefined;
  /** Splits and burials that wait for the queue. */
  readonly #storing = new Set<Promise<void>>();

  /** @param onFailure is called when the queue itself fails: nothing can be delivered any more */
  constructor(queue: Queue, options: DeliveryOptions, onFailure: (reason: unknown) => void) {
    this.#queue = queue;
    this.#options = options;
    this.#onFailure = onFailure;
  }

  start(): void {
    this.#queue.onArrival(() => this.#lookSoon());
    const lookMs = Math.min(LONGEST_LOOK_MS, Math.max(SHORTEST_LOOK_MS, this.#options.backoff.initialMs / 2));
    this.#timer = setInterval(() => this.#lookSoon(), lookMs);
    this.#lookSoon();
  }

  /** Takes nothing more, finishes what is being sent for at most `graceMs`, and unlocks the rest. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#timer);
    const quiet = new Promise<void>((resolve) => {
      this.#whenQuiet = resolve;
    });
    for (const destination of this.#destinations.values()) {
      this.#unlockUntried(destination.release());
      destination.stop();
    }
    this.#noteQuiet();
    const timer = setTimeout(() => {
      for (const destination of this.#destinations.values()) destination.abort();
    }, graceMs);
    await quiet;
    clearTimeout(timer);
    await Promise.all(this.#storing);
    this.#settle();
  }

  /** Once per turn, however many occasions there were. */
  #lookSoon(): void {
    if (this.#looking || this.#stopping) return;
    this.#looking = true;
    setImmediate(() => {
      this.#looking = false;
      try {
        this.#look();
      } catch (reason) {
        this.#onFailure(reason);
      }
    });
  }

  #look(): void {
    if (this.#stopping) return;
    this.#settle();
    const room = this.#room();
    if (room === undefined) this.#makeRoom();
    else this.#take(room);
    for (const destination of this.#destinations.values()) destination.start();
  }

  #take(room: { count: number; bytes: number }): void {
    const { backoff } = this.#options;
    const nowMs = Date.now();
    const due = (retryCount: number, lastRetryMs: number) => isDue(backoff, retryCount, lastRetryMs, nowMs);
    const taken = this.#queue.take({ ...room, due });
    this.#lookAgain = taken.length > 0;
    for (const locked of taken) this.#post(locked);
  }

  #room(): { count: number; bytes: number } | undefined {
    const count = this.#options.batchMessages - this.#inHand.size;
    const bytes = this.#options.batchBytes - this.#inHandBytes;
    return count > 0 && bytes > 0 ? { count, bytes } : undefined;
  }

  #post(locked: Locked): void {
    this.#inHand.add(locked);
    this.#inHandBytes += locked.body.data.length;
    const address = locked.body.destination ?? this.#options.routing.nextHop;
    if (address === undefined) {
      this.#postpone(locked, 'there is no route to its destination, and no next hop');
      return;
    }
    const envelope = envelopeOf(this.#options.routing, locked.body);
    this.#destination(address).add({ locked, envelope, data: locked.body.data });
  }

  #destination(address: string): Destination<Parcel> {
    const known = this.#destinations.get(address);
    if (known !== undefined) return known;
    const at = address.lastIndexOf(':');
    const host = address.slice(0, at).replace(/^\[(.*)\]$/, '$1');
    const port = Number(address.slice(at + 1));
    const destination = new Destination<Parcel>(
      { ...this.#options, host, port, keepIdleMs: KEEP_IDLE_MS },
      {
        onDone: (parcel, results) => this.#onDone(parcel.locked, results),
        onUndone: (parcel, reason) => this.#postpone(parcel.locked, reason),
        onQuiet: () => this.#noteQuiet(),
      },
    );
    this.#destinations.set(address, destination);
    return destination;
  }

  #onDone(locked: Locked, results: readonly RecipientResult[]): void {
    const [first] = results;
    const isSame = results.every((result) => result.result === first?.result);
    if (first === undefined || !isSame) this.#keepInOrder(this.#split(locked, results));
    else if (first.result === 'delivered') this.#consume(locked);
    else if (first.result === 'refused') this.#keepInOrder(this.#bury(locked, first.reason));
    else this.#postpone(locked, first.reason);
  }

  /** Not delivered, this time; after too many times it goes to the dead-letter queue [0035]. */
  #postpone(locked: Locked, reason: string): void {
    if (locked.retryCount >= this.#options.retryLimit) {
      this.#keepInOrder(this.#bury(locked, `retry limit exceeded: ${reason}`));
      return;
    }
    this.#tried.push(locked);
    this.#settleSoon();
  }

  #consume(locked: Locked): void {
    this.#consumed.push(locked);
    this.#settleSoon();
  }

  async #bury(locked: Locked, reason: string): Promise<void> {
    await this.#queue.bury(locked, reason);
    this.#letGo(locked);
  }

  /**
   * Some recipients were served and others not: the others get records of their own, those refused apart from those to
   * be tried again, before the old record goes. If there is no room, the old one stays and all are tried again.
   */
  async #split(locked: Locked, results: readonly RecipientResult[]): Promise<void> {
    const bodies: Body[] = [];
    for (const wanted of ['deferred', 'refused'] as const) {
      const positions = new Set<number>();
      results.forEach((result, position) => {
        if (result.result === wanted) positions.add(position);
      });
      if (positions.size > 0) bodies.push(bodyFor(locked.body, positions));
    }
    const { outcome } = await this.#queue.enqueue(bodies);
    if (outcome === 'confirmed') this.#consume(locked);
    else this.#postpone(locked, `some recipients are left over, and storing them was ${outcome}`);
  }

  #keepInOrder(work: Promise<void>): void {
    const kept = work.catch(this.#onFailure).finally(() => {
      this.#storing.delete(kept);
      this.#noteQuiet();
    });
    this.#storing.add(kept);
  }

  /** Consumes and unlocks once per turn: the index is locked once for many messages. */
  #settleSoon(): void {
    if (this.#settling) return;
    this.#settling = true;
    setImmediate(() => {
      this.#settling = false;
      try {
        this.#settle();
        // Half a batch is refilled at a time, not every message one by one.
        if (this.#lookAgain && this.#inHand.size <= this.#options.batchMessages / 2) this.#lookSoon();
      } catch (reason) {
        this.#onFailure(reason);
      }
    });
  }

  #settle(): void {
    const consumed = this.#consumed;
    const tried = this.#tried;
    this.#consumed = [];
    this.#tried = [];
    if (consumed.length > 0) this.#queue.consume(consumed);
    if (tried.length > 0) this.#queue.unlock(tried, true);
    for (const locked of consumed) this.#letGo(locked);
    for (const locked of tried) this.#letGo(locked);
  }

  #letGo(locked: Locked): void {
    if (this.#inHand.delete(locked)) this.#inHandBytes -= locked.body.data.length;
  }

  #unlockUntried(parcels: readonly Parcel[]): void {
    if (parcels.length === 0) return;
    const messages = parcels.map((parcel) => parcel.locked);
    this.#queue.unlock(messages, false);
    for (const locked of messages) this.#letGo(locked);
  }

  /**
   * The hands are full. A host that swallows messages without finishing any must not keep those of other hosts from
   * being taken: what waits for it goes back and is tried later.
   */
  #makeRoom(): void {
    this.#lookAgain = true;
    for (const destination of this.#destinations.values()) {
      if (destination.stalledMs < STALLED_MS) continue;
      for (const parcel of destination.release()) this.#postpone(parcel.locked, 'the next hop is too slow');
    }
  }

  #noteQuiet(): void {
    if (this.#whenQuiet === undefined || this.#storing.size > 0) return;
    if ([...this.#destinations.values()].every((destination) => destination.isQuiet)) this.#whenQuiet();
  }
}
