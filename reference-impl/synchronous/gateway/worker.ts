import { QueueError } from '../platform/errors.js';
import { linux } from '../platform/linux.js';
import { logEvent } from '../queue/pair.js';
import type { Queue } from '../queue/types.js';
import type { QueueSettings } from '../settings/settings.js';
import { InboundServer } from './inbound/server.js';
import { Delivery } from './outbound/delivery.js';
import { bodiesOf, hasRoute, type Routing } from './outbound/routing.js';

/** A running gateway worker: it accepts mail, stores it, and delivers it (patent [0017]). */
export interface Worker {
  /** Port on which the worker listens for mail. */
  port: number;
  /** Resolves with the reason when the queue fails. Otherwise it stays pending. */
  queueFailure: Promise<unknown>;
  /** Answers new mail with 421, finishes the messages in flight, and closes the queue. */
  stop(): Promise<void>;
}

/**
 * Starts a worker on an open queue. The worker closes the queue when it stops.
 * @throws QueueError `bad-setting` when there is neither a next hop nor a route, or the port is not available
 */
export async function startWorker(settings: QueueSettings, queue: Queue): Promise<Worker> {
  const routing = routingOf(settings);
  let fail: (reason: unknown) => void = () => undefined;
  const queueFailure = new Promise<unknown>((resolve) => {
    fail = resolve;
  });
  const { smtp } = settings;
  const inbound = await InboundServer.start({
    ...smtp,
    hasRoute: (domain) => hasRoute(routing, domain),
    store: (sender, recipients, data) =>
      queue.enqueue(bodiesOf(routing, { sender, recipients }, data), 'inbound'),
    fail,
  });
  const delivery = new Delivery(queue, deliveryOptions(settings, routing), fail);
  delivery.start();
  const stop = async () => {
    await Promise.all([inbound.stop(smtp.shutdownGraceMs), delivery.stop(smtp.shutdownGraceMs)]);
    await queue.close();
  };
  return { port: inbound.port, queueFailure, stop };
}

/**
 * Extracts the routing from the settings.
 * @throws QueueError `bad-setting` when there is neither a next hop nor a route
 */
export function routingOf({ delivery, smtp }: QueueSettings): Routing {
  const { nextHop, routes } = delivery;
  if (nextHop === undefined && Object.keys(routes).length === 0) {
    throw new QueueError(
      'bad-setting',
      'delivery.nextHop: it is missing, expected host:port (--next-hop), or delivery.routes',
    );
  }
  return { nextHop, routes, smsDomain: smtp.smsDomain.toLowerCase() };
}

function deliveryOptions({ delivery }: QueueSettings, routing: Routing) {
  const { backoffInitialMs, backoffMaxMs, ...rest } = delivery;
  const log = (event: string, fields: object) => logEvent(linux, event, fields);
  return { ...rest, routing, log, backoff: { initialMs: backoffInitialMs, maxMs: backoffMaxMs } };
}
