import type { Exchange, Refusal } from './exchange.js';
import type { Leases } from './leases.js';
import { ID, type Query, queueProblem } from './names.js';
import { type Receiver, Receivers } from './receivers.js';
import type { MessageStore, TakenMessage } from './store.js';

/** The requests of receivers for a message. */
export class Deliveries {
  readonly #store: MessageStore;
  readonly #leases: Leases;
  readonly #receivers: Receivers;
  readonly #maxWaitMs: number;
  readonly #maxWaiting: number;

  constructor(
    store: MessageStore,
    leases: Leases,
    limits: { maxWaitMs: number; maxWaitingReceivers: number },
  ) {
    this.#store = store;
    this.#leases = leases;
    this.#receivers = new Receivers(store, () => !leases.isFull);
    this.#maxWaitMs = limits.maxWaitMs;
    this.#maxWaiting = limits.maxWaitingReceivers;
  }

  get waitingCount(): number {
    return this.#receivers.count;
  }

  /** There is room for one more lease. */
  leaseEnded(): void {
    this.#receivers.serveSoon();
  }

  /** All waiting receivers get nothing. */
  stop(): void {
    this.#receivers.stop();
  }

  /** `POST /leases` */
  lease(exchange: Exchange, query: Query): void {
    const { queue, wait = '0' } = query;
    const refusal = this.#refusalOf(query);
    if (refusal !== undefined) {
      exchange.fail(refusal.status, refusal.line);
      return;
    }
    const receiver: Receiver = {
      queue,
      deliver: (message) => this.#deliver(exchange, message),
      nothing: () => exchange.answer(204),
      fail: (cause) => exchange.fail(500, `no message could be taken: ${String(cause)}`),
    };
    // `#deliver` sets it anew.
    let forget: () => void = () => undefined;
    exchange.onLost = () => forget();
    forget = this.#receivers.add(receiver, Math.min(Number(wait), this.#maxWaitMs));
  }

  #refusalOf({ queue, wait = '0' }: Query): Refusal | undefined {
    const problem = queueProblem(queue);
    if (problem !== undefined) return { status: 400, line: problem };
    if (!/^\d{1,9}$/.test(wait))
      return { status: 400, line: `wait is ${wait}, expected whole milliseconds up to 999999999` };
    if (queue !== undefined && !this.#store.queues().some(({ name }) => name === queue))
      return { status: 404, line: `no queue has the name ${queue}, expected one of GET /queues` };
    const { count } = this.#leases;
    if (this.#leases.isFull)
      return { status: 503, line: `${count} messages are in delivery, expected fewer: consume some` };
    if (this.#receivers.count >= this.#maxWaiting)
      return { status: 503, line: `${this.#receivers.count} receivers wait already, expected fewer` };
    return undefined;
  }

  #deliver(exchange: Exchange, message: TakenMessage): void {
    const lease = this.#leases.grant(message);
    // Without this line, a message whose receiver has gone would be missing until its lease ends.
    exchange.onLost = () => this.#leases.giveBack(lease);
    if (!exchange.isOpen) {
      this.#leases.giveBack(lease);
      return;
    }
    const { id, body } = message;
    const headers = {
      'message-id': ID.test(id) ? id : encodeURIComponent(id),
      lease: lease.id,
      'content-type': 'application/octet-stream',
    };
    exchange.answer(200, headers, body);
  }
}
