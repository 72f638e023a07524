import type { Address } from '../address.js';

const ANSWER_TIMEOUT_MS = 10_000;
const NODE_ANSWER_TIMEOUT_MS = 3000;

/**
 * Returns the time that a receiver waits for an answer, in ms. It is shorter for a node of a cluster: while one node is
 * stopped or isolated, another one has the messages.
 */
export function answerTimeoutMs({ node }: Address): number {
  return node === undefined ? ANSWER_TIMEOUT_MS : NODE_ANSWER_TIMEOUT_MS;
}

/**
 * Adds a timeout to a promise of a client. A stopped target never answers, and few clients have their own
 * timeouts.
 * @throws Error when `timeoutMs` passes first.
 */
export async function withTimeout<T>(promise: Promise<T>, timeoutMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timedOut = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    return await Promise.race([promise, timedOut]);
  } finally {
    clearTimeout(timer);
  }
}
