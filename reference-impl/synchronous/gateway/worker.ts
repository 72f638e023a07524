import { QueueError } from '../../common/platform/errors.js';
import { linux } from '../../common/platform/linux.js';
import { logEvent } from '../queue/pair.js';
import type { Queue } from '../queue/types.js';
import type { QueueSettings } from '../settings/settings.js';
import { InboundServer } from './inbound/server.js';
import { traceIds } from './inbound/trace.js';
import { Delivery } from './outbound/delivery.js';
import { bodiesOf, hasRoute, type Routing } from './outbound/routing.js';
import { inboundTls, outboundTls } from './tls.js';

/** A running gateway worker: it accepts mail, stores it, and delivers it (patent [0017]). */
export interface Worker {
  /** Port on which the worker listens for mail. */
  port: number;
  /** Resolves with the reason when the queue fails. Otherwise it stays pending. */
  queueFailure: Promise<unknown>;
  /**
   * Reads the certificate and key of the SMTP server again. The next sessions use them.
   * @throws QueueError `bad-setting` when a file is wrong; those read before then stay in use
   */
  reloadTls(): void;
  /** Answers new mail with 421, finishes the messages in flight, and closes the queue. */
  stop(): Promise<void>;
}

/**
 * Starts a worker on an open queue. The worker closes the queue when it stops.
 * @param queueId text that tells this queue from others, in trace headers; the same for all its workers
 * @throws QueueError `bad-setting` when there is neither a next hop nor a route, the port is not available, or a file for
 * TLS is wrong
 */
export async function startWorker(settings: QueueSettings, queue: Queue, queueId: string): Promise<Worker> {
  const routing = routingOf(settings);
  let secureContext = inboundTls(settings.smtp);
  const tls = outboundTls(settings.delivery);
  let fail: (reason: unknown) => void = () => undefined;
  const queueFailure = new Promise<unknown>((resolve) => {
    fail = resolve;
  });
  const { smtp } = settings;
  const inbound = await InboundServer.start({
    ...smtp,
    traceIds: traceIds(queueId),
    secureContext: () => secureContext,
    hasRoute: (domain) => hasRoute(routing, domain),
    store: (sender, recipients, data) =>
      queue.enqueue(bodiesOf(routing, { sender, recipients }, data), 'inbound'),
    fail,
  });
  const delivery = new Delivery(queue, { ...deliveryOptions(settings, routing), tls }, fail);
  delivery.start();
  const stop = async () => {
    await Promise.all([inbound.stop(smtp.shutdownGraceMs), delivery.stop(smtp.shutdownGraceMs)]);
    await queue.close();
  };
  const reloadTls = () => {
    secureContext = inboundTls(settings.smtp);
  };
  return { port: inbound.port, queueFailure, reloadTls, stop };
}

/**
 * Checks the settings whose mistakes can be found before the queue is opened, which may take a whole restore.
 * @throws QueueError `bad-setting` as `startWorker`
 */
export function checkGatewaySettings(settings: QueueSettings): void {
  routingOf(settings);
  inboundTls(settings.smtp);
  outboundTls(settings.delivery);
}

/**
 * Extracts the routing from the settings.
 * @throws QueueError `bad-setting` when there is neither a next hop nor a route
 */
function routingOf({ delivery, smtp }: QueueSettings): Routing {
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
  const { backoffInitialMs, backoffMaxMs, tls: _, tlsCa: __, ...rest } = delivery;
  const log = (event: string, fields: object) => logEvent(linux, event, fields);
  return { ...rest, routing, log, backoff: { initialMs: backoffInitialMs, maxMs: backoffMaxMs } };
}
