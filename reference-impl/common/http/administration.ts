import { receiveBody } from './body.js';
import type { BodyBudget } from './budget.js';
import type { Exchange } from './exchange.js';
import { queueProblem } from './names.js';
import type { MessageStore } from './store.js';

const MAX_DEFINITION_BYTES = 64 * 1024;
const MAX_KEYS = 64;
const KEY = /^[A-Za-z][A-Za-z0-9-]{0,63}$/;
const DEFINITION = 'a JSON object of strings and numbers';

type Definition = Record<string, string | number>;

/** The requests that create, change, delete and list queues. */
export class Administration {
  readonly #store: MessageStore;
  readonly #budget: BodyBudget;

  constructor(store: MessageStore, budget: BodyBudget) {
    this.#store = store;
    this.#budget = budget;
  }

  /** `GET /queues` */
  list(exchange: Exchange): void {
    exchange.answerJson(200, { queues: this.#store.queues() });
  }

  /** `GET /queues/{name}` */
  show(exchange: Exchange, name: string): void {
    const queue = this.#store.queues().find((one) => one.name === name);
    if (queue === undefined) noSuchQueue(exchange, name);
    else exchange.answerJson(200, queue);
  }

  /** `PUT /queues/{name}`: creates the queue, or replaces its definition. */
  define(exchange: Exchange, name: string): void {
    const problem = queueProblem(name);
    if (problem !== undefined) {
      exchange.refuse({ status: 400, line: problem }, MAX_DEFINITION_BYTES);
      return;
    }
    receiveBody(exchange, this.#budget, MAX_DEFINITION_BYTES, async (body, holding) => {
      const definition = readDefinition(body);
      holding.close();
      if (definition === undefined)
        return exchange.fail(400, `the body is not a definition, expected ${DEFINITION}`);
      await settle(exchange, async () => {
        let outcome: string = await this.#store.createQueue(name, definition);
        if (outcome === 'exists') outcome = await this.#store.changeQueue(name, definition);
        if (outcome === 'created') exchange.answer(201);
        else if (outcome === 'changed') exchange.answer(200);
        else if (outcome === 'no-such-queue')
          exchange.fail(409, `queue ${name} was deleted at the same time`);
        else exchange.fail(409, `the definition of queue ${name} was rejected`);
      });
    });
  }

  /** `DELETE /queues/{name}` */
  async delete(exchange: Exchange, name: string): Promise<void> {
    await settle(exchange, async () => {
      const outcome = await this.#store.deleteQueue(name);
      if (outcome === 'deleted') exchange.answer(204);
      else if (outcome === 'no-such-queue') noSuchQueue(exchange, name);
      else exchange.fail(409, `queue ${name} cannot be deleted now`);
    });
  }
}

/** Answers 500 when the store fails: the change may be durable. */
async function settle(exchange: Exchange, change: () => Promise<void>): Promise<void> {
  try {
    await change();
  } catch (error) {
    exchange.fail(500, `the outcome is unknown: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function noSuchQueue(exchange: Exchange, name: string): void {
  exchange.fail(404, `no queue has the name ${name.slice(0, 64)}, expected one of GET /queues`);
}

/** Returns undefined if the bytes are no definition. */
function readDefinition(bytes: Buffer): Definition | undefined {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const entries = Object.entries(value);
  const isRight = ([key, one]: [string, unknown]) =>
    KEY.test(key) && (typeof one === 'string' || typeof one === 'number');
  return entries.length <= MAX_KEYS && entries.every(isRight) ? (value as Definition) : undefined;
}
