import { Agent } from 'node:http';
import type { Lease, Source } from '../client/pull.js';
import { exchange, type Response } from './exchange.js';

/** The target may hold a request for a lease so long before it says that there is nothing. */
const WAIT_MS = 500;
const ANSWER_TIMEOUT_MS = 10_000;

/** Leases messages, and deletes the leases of those that are taken. */
export function httpSource(port: number): Source {
  const agent = new Agent({ keepAlive: true });
  const call = (method: 'POST' | 'DELETE', path: string, timeoutMs: number) =>
    exchange({ agent, port, method, path, timeoutMs });
  return {
    async next() {
      const leased = await call('POST', `/leases?wait=${WAIT_MS}`, ANSWER_TIMEOUT_MS + WAIT_MS);
      if (leased.status === 204) return undefined;
      if (leased.status === 200) return leaseOf(leased, call);
      throw new Error(`a lease was answered with ${leased.status}`);
    },
    close: () => agent.destroy(),
  };
}

function leaseOf(
  { body, headers }: Response,
  call: (method: 'DELETE', path: string, timeoutMs: number) => Promise<Response>,
): Lease {
  return {
    body,
    async take() {
      const path = `/leases/${encodeURIComponent(String(headers.lease ?? ''))}`;
      const { status } = await call('DELETE', path, ANSWER_TIMEOUT_MS);
      if (status === 204) return undefined;
      if (status === 404 || status === 410) return String(status);
      throw new Error(`a deletion was answered with ${status}`);
    },
    leave: async () => 'the lease was left to itself',
  };
}
