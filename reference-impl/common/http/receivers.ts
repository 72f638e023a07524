import type { MessageStore, TakenMessage } from './store.js';

/** A receiver that waits for a message. */
export interface Receiver {
  /** Queue from which it receives; undefined: any. */
  readonly queue: string | undefined;
  deliver(message: TakenMessage): void;
  /** Called when no message came in time. */
  nothing(): void;
  /** Called when the store failed to say whether there is a message. */
  fail(cause: unknown): void;
}

interface Waiting {
  receiver: Receiver;
  /** Place in the order of arrival, over all queues. */
  place: number;
  timer: NodeJS.Timeout | undefined;
}

/** The receivers that wait for a message. They are served in the order of their arrival. */
export class Receivers {
  readonly #store: MessageStore;
  readonly #mayTake: () => boolean;
  /** The waiting receivers of each queue, the oldest first. */
  readonly #groups = new Map<string | undefined, Set<Waiting>>();
  #arrivals = 0;
  #count = 0;
  #isServing = false;
  #isScheduled = false;

  /** @param mayTake whether there is room for one more message in delivery */
  constructor(store: MessageStore, mayTake: () => boolean) {
    this.#store = store;
    this.#mayTake = mayTake;
    store.onReady(() => this.serveSoon());
  }

  get count(): number {
    return this.#count;
  }

  /**
   * Delivers the next message to a receiver: at once, or as soon as one is ready and all earlier receivers have theirs.
   * @param waitMs time after which it gets nothing; 0: at once
   * @returns function that forgets the receiver
   */
  add(receiver: Receiver, waitMs: number): () => void {
    this.#arrivals += 1;
    const waiting: Waiting = { receiver, place: this.#arrivals, timer: undefined };
    let group = this.#groups.get(receiver.queue);
    if (group === undefined) {
      group = new Set();
      this.#groups.set(receiver.queue, group);
    }
    group.add(waiting);
    this.#count += 1;
    this.serve();
    if (group.has(waiting)) {
      const giveUp = () => this.#remove(waiting) && receiver.nothing();
      if (waitMs > 0) waiting.timer = setTimeout(giveUp, waitMs);
      else giveUp();
    }
    return () => this.#remove(waiting);
  }

  /** Serves after the caller has returned: the store may call from the middle of a change. */
  serveSoon(): void {
    if (this.#isScheduled || this.#count === 0) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.serve();
    });
  }

  /** Gives every message that is ready to the receiver that waits longest for it. */
  serve(): void {
    if (this.#isServing) return;
    this.#isServing = true;
    const empty = new Set<string | undefined>();
    while (this.#count > 0 && this.#mayTake()) {
      const oldest = this.#oldest(empty);
      if (oldest === undefined) break;
      const { receiver } = oldest;
      let message: TakenMessage | undefined;
      try {
        message = this.#store.take(receiver.queue);
      } catch (error) {
        this.#remove(oldest);
        receiver.fail(error);
        continue;
      }
      if (message === undefined) {
        if (receiver.queue === undefined) break;
        empty.add(receiver.queue);
        continue;
      }
      this.#remove(oldest);
      receiver.deliver(message);
    }
    this.#isServing = false;
  }

  /** All waiting receivers get nothing. */
  stop(): void {
    for (const group of [...this.#groups.values()])
      for (const waiting of [...group]) if (this.#remove(waiting)) waiting.receiver.nothing();
  }

  #oldest(empty: ReadonlySet<string | undefined>): Waiting | undefined {
    let oldest: Waiting | undefined;
    for (const [queue, group] of this.#groups) {
      if (empty.has(queue)) continue;
      const [first] = group;
      if (first !== undefined && (oldest === undefined || first.place < oldest.place)) oldest = first;
    }
    return oldest;
  }

  #remove(waiting: Waiting): boolean {
    const { queue } = waiting.receiver;
    const group = this.#groups.get(queue);
    if (group?.delete(waiting) !== true) return false;
    clearTimeout(waiting.timer);
    this.#count -= 1;
    if (group.size === 0) this.#groups.delete(queue);
    return true;
  }
}
