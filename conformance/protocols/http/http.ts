import { Agent } from 'node:http';
import type { Protocol } from '../protocol.js';
import { HttpConsumer } from './consumer.js';
import { exchange } from './exchange.js';
import { connectHttp } from './producer.js';

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
  receive: async (ports, options) => new HttpConsumer(ports, options),
};
