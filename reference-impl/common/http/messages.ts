import { z } from 'zod';
import { receiveBody } from './body.js';
import type { BodyBudget, Holding } from './budget.js';
import type { Exchange } from './exchange.js';
import type { Lease, LeaseProblem, Leases } from './leases.js';
import { ID, idProblem, QUEUE_NAME, type Query, queueProblem } from './names.js';
import type { CommitOutcome, MessageStore, NewMessage } from './store.js';

/** Largest number of messages and consumptions in one transaction. */
const MAX_TRANSACTION_PARTS = 10_000;

const STATUS = { full: 507, 'too-large': 413, 'no-such-queue': 404, 'not-taken': 409 } as const;

/** Outcome of a commit. `unknown`: the store failed, and the transaction may be durable. */
type Outcome = CommitOutcome | { outcome: 'unknown'; detail: string };

/** The requests that change what is stored: submits, consumptions, and transactions of both. */
export class Messages {
  readonly #store: MessageStore;
  readonly #leases: Leases;
  readonly #budget: BodyBudget;
  readonly #maxBodyBytes: number;
  readonly #maxTransactionBytes: number;

  constructor(
    store: MessageStore,
    leases: Leases,
    budget: BodyBudget,
    limits: { maxBodyBytes: number; maxTransactionBytes: number },
  ) {
    this.#store = store;
    this.#leases = leases;
    this.#budget = budget;
    this.#maxBodyBytes = limits.maxBodyBytes;
    this.#maxTransactionBytes = limits.maxTransactionBytes;
  }

  /** `PUT /messages/{id}` */
  submit(exchange: Exchange, id: string, { queue }: Query): void {
    const problem = idProblem(id) ?? queueProblem(queue);
    if (problem !== undefined) {
      exchange.refuse({ status: 400, line: problem }, this.#maxBodyBytes);
      return;
    }
    receiveBody(exchange, this.#budget, this.#maxBodyBytes, async (body, holding) => {
      const outcome = await this.#commit([{ id, body, queue }], []);
      holding.close();
      if (outcome.outcome === 'committed') exchange.answer(201);
      else failWith(exchange, outcome);
    });
  }

  /** `DELETE /leases/{lease}` */
  async consume(exchange: Exchange, id: string): Promise<void> {
    let lease = this.#leases.find(id);
    // The same request may have been sent twice, or a transaction consumes the message.
    while (typeof lease === 'object' && lease.state === 'consuming') {
      await lease.settled;
      lease = this.#leases.find(id);
    }
    if (lease === 'consumed') return exchange.answer(204);
    if (lease === 'unknown') return exchange.fail(500, leaseProblem(id, lease));
    if (typeof lease === 'string') return exchange.fail(404, leaseProblem(id, lease));
    const outcome = await this.#commit([], [lease]);
    if (outcome.outcome === 'committed') exchange.answer(204);
    else failWith(exchange, outcome);
  }

  /** `POST /transactions` */
  transact(exchange: Exchange): void {
    receiveBody(exchange, this.#budget, this.#maxTransactionBytes, async (body, holding) => {
      await this.#transact(exchange, body, holding);
      holding.close();
    });
  }

  async #transact(exchange: Exchange, body: Buffer, holding: Holding): Promise<void> {
    // Reserve more memory: the decoded messages are in memory beside their text.
    if (!holding.take(body.length))
      return exchange.fail(503, 'no memory for this transaction now, try again later');
    const transaction = readTransaction(body);
    if (typeof transaction === 'string') return exchange.fail(400, transaction);
    const { puts, consume } = transaction;
    const large = puts.find(({ body: { length } }) => length > this.#maxBodyBytes);
    if (large !== undefined)
      return exchange.fail(
        413,
        `message ${large.id} has ${large.body.length} bytes, expected at most ${this.#maxBodyBytes}`,
      );
    const leases: Lease[] = [];
    for (const id of consume) {
      const lease = this.#leases.find(id);
      if (typeof lease !== 'object' || lease.state !== 'held') {
        const problem = typeof lease === 'string' ? lease : 'consuming';
        return exchange.fail(
          problem === 'ended' ? 404 : 409,
          `${leaseProblem(id, problem)}; nothing was done`,
        );
      }
      leases.push(lease);
    }
    const outcome = await this.#commit(puts, leases);
    if (outcome.outcome === 'committed') exchange.answer(201);
    else failWith(exchange, outcome);
  }

  async #commit(puts: readonly NewMessage[], leases: readonly Lease[]): Promise<Outcome> {
    this.#leases.begin(leases);
    let outcome: Outcome;
    try {
      outcome = await this.#store.commit({ puts, consumed: leases.map(({ message }) => message) });
    } catch (error) {
      outcome = { outcome: 'unknown', detail: error instanceof Error ? error.message : String(error) };
    }
    if (outcome.outcome === 'committed') this.#leases.committed(leases);
    else if (outcome.outcome === 'rejected') this.#leases.rejected(leases);
    else this.#leases.unknown(leases);
    return outcome;
  }
}

function failWith(exchange: Exchange, outcome: Exclude<Outcome, { outcome: 'committed' }>): void {
  if (outcome.outcome === 'rejected') exchange.fail(STATUS[outcome.reason] ?? 500, outcome.detail);
  else exchange.fail(500, `the outcome is unknown: ${outcome.detail}`);
}

function leaseProblem(id: string, problem: LeaseProblem): string {
  const lease = `lease ${id.slice(0, 40)}`;
  if (problem === 'ended') return `${lease} has ended or never was, expected one that is held`;
  if (problem === 'consuming') return `${lease} is being consumed by another request`;
  if (problem === 'consumed') return `the message of ${lease} was consumed before`;
  return `whether the message of ${lease} is consumed is unknown until the queue has restarted`;
}

const TRANSACTION = z.strictObject({
  put: z
    .array(
      z.strictObject({
        id: z.string().regex(ID),
        body: z.string(),
        queue: z.string().regex(QUEUE_NAME).optional(),
      }),
    )
    .default([]),
  consume: z.array(z.string().max(100)).default([]),
});

/** Reads the body of `POST /transactions`. Returns one line of text if it is none. */
function readTransaction(bytes: Buffer): { puts: NewMessage[]; consume: string[] } | string {
  const expected = 'expected {"put": [{"id", "body": base64, "queue"?}], "consume": [lease]}';
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    return `the body is not JSON, ${expected}`;
  }
  // Check the number before the shape: the error text for a million wrong parts would take more memory than the parts.
  const parts = partsOf(value);
  if (parts > MAX_TRANSACTION_PARTS)
    return `the transaction has ${parts} parts, expected at most ${MAX_TRANSACTION_PARTS}`;
  if (parts === 0) return `the transaction is empty, ${expected}`;
  const parsed = TRANSACTION.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    return `${issue?.path.join('.') || 'the body'}: ${issue?.message}, ${expected}`;
  }
  const { put, consume } = parsed.data;
  if (new Set(consume).size < consume.length) return 'consume: a lease is named twice, expected once';
  const puts: NewMessage[] = [];
  for (const [at, { id, body, queue }] of put.entries()) {
    const decoded = Buffer.from(body, 'base64');
    // Node skips what is not base64. Half a message could be stored then.
    if (decoded.toString('base64') !== body) return `put.${at}.body is not base64, expected it with padding`;
    puts.push({ id, body: decoded, queue });
  }
  return { puts, consume };
}

function partsOf(value: unknown): number {
  const { put, consume } = Object(value) as { put?: unknown; consume?: unknown };
  return (Array.isArray(put) ? put.length : 0) + (Array.isArray(consume) ? consume.length : 0);
}
