import type { IncomingMessage } from 'node:http';
import type { Administration } from './administration.js';
import type { Deliveries } from './deliveries.js';
import type { Exchange, Refusal } from './exchange.js';
import type { Messages } from './messages.js';
import { type Query, readTarget } from './names.js';

/** The handlers of the requests. */
export interface Services {
  messages: Messages;
  deliveries: Deliveries;
  administration: Administration;
  /** Returns what `GET /status` answers. */
  status: () => Record<string, unknown>;
}

type Handle = (exchange: Exchange, name: string, query: Query) => void | Promise<void>;

interface Handler {
  /** Whether the handler receives the body itself. */
  takesBody: boolean;
  handle: Handle;
}

interface Route {
  methods: Record<string, Handler>;
  /** Names of the parameters that the request may have. */
  parameters: readonly (keyof Query)[];
}

/** A request that can be handled. */
export interface Resolved {
  handler: Handler;
  name: string;
  query: Query;
}

/** The requests of the front. A path that ends with `/` is followed by one name. */
export class Router {
  readonly #routes: ReadonlyMap<string, Route>;

  constructor({ messages, deliveries, administration, status }: Services) {
    this.#routes = new Map([
      ['/ready', route({ GET: simple((exchange) => exchange.answer(200)) })],
      [
        '/messages/',
        route({ PUT: withBody((exchange, id, query) => messages.submit(exchange, id, query)) }, ['queue']),
      ],
      [
        '/leases',
        route({ POST: simple((exchange, _, query) => deliveries.lease(exchange, query)) }, ['queue', 'wait']),
      ],
      ['/leases/', route({ DELETE: simple((exchange, id) => messages.consume(exchange, id)) })],
      ['/transactions', route({ POST: withBody((exchange) => messages.transact(exchange)) })],
      ['/queues', route({ GET: simple((exchange) => administration.list(exchange)) })],
      [
        '/queues/',
        route({
          GET: simple((exchange, name) => administration.show(exchange, name)),
          PUT: withBody((exchange, name) => administration.define(exchange, name)),
          DELETE: simple((exchange, name) => administration.delete(exchange, name)),
        }),
      ],
      ['/status', route({ GET: simple((exchange) => exchange.answerJson(200, status())) })],
    ]);
  }

  /** Finds the handler of a request, or why there is none. */
  resolve({ headers, method = '', httpVersion, url = '' }: IncomingMessage): Resolved | Refusal {
    if (headers.host === undefined && httpVersion === '1.1')
      return { status: 400, line: 'the request has no header host, expected one' };
    if (headers.expect !== undefined && !/^100-continue$/i.test(headers.expect))
      return { status: 417, line: 'the header expect is unknown, expected 100-continue' };
    const target = readTarget(url, (resource) => this.#routes.get(resource)?.parameters ?? []);
    if (typeof target === 'string') return { status: 400, line: target };
    const route = this.#routes.get(target.resource);
    if (route === undefined) {
      const known = [...this.#routes.keys()].join(' ');
      return { status: 404, line: `no such path, expected one of ${known}` };
    }
    const handler = route.methods[method];
    if (handler !== undefined) return { handler, name: target.name, query: target.query };
    const allow = Object.keys(route.methods).join(', ');
    return { status: 405, line: `the method is ${method}, expected ${allow}`, headers: { allow } };
  }
}

const simple = (handle: Handle): Handler => ({ takesBody: false, handle });
const withBody = (handle: Handle): Handler => ({ takesBody: true, handle });

function route(methods: Record<string, Handler>, parameters: Route['parameters'] = []): Route {
  // Without a prototype, so that a method such as `constructor` finds nothing.
  return { parameters, methods: Object.assign(Object.create(null), methods) };
}
