import { Agent } from 'node:http';
import { PullReceiver } from '../client/pull.js';
import type { Protocol } from '../protocol.js';
import { httpSource } from './consumer.js';
import { exchange } from './exchange.js';
import { connectHttp } from './producer.js';

const LEASES_AT_A_TIME = 2;

/** Queues with a small HTTP front: `PUT /messages/{id}`, `POST /leases`, `DELETE /leases/{lease}`, `GET /ready`. */
export const http: Protocol = {
  name: 'http',
  connect: (port, options) => connectHttp(port, options?.timeoutMs),
  async ready(port, timeoutMs) {
    const agent = new Agent();
    try {
      return (await exchange({ agent, port, method: 'GET', path: '/ready', timeoutMs })).status === 200;
    } catch {
      return false;
    } finally {
      agent.destroy();
    }
  },
  async receive(ports, options) {
    const perPort = Array.from({ length: LEASES_AT_A_TIME }, () => ports).flat();
    return new PullReceiver(
      perPort.map((port) => async () => httpSource(port)),
      options,
    );
  },
};
