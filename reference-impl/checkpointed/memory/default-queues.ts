import { crc32c } from '@node-rs/crc32';
import type { QueueDefinition } from './memory-queue.js';

const nameOf = (number: number): string => `q${number}`;

/** Returns the definitions of the default queues. */
export const defaultQueues = (count: number): QueueDefinition[] =>
  Array.from({ length: count }, (_, number) => ({ name: nameOf(number), order: 'strict' }));

/** Reports whether a queue is a default one. */
export function isDefaultQueue(name: string, count: number): boolean {
  return Array.from({ length: count }, (_, number) => nameOf(number)).includes(name);
}

/**
 * Returns the default queue for a message id. All messages of one producer go to one queue, which keeps their order: ids have
 * the form `PRODUCER-NUMBER`, and the part before the last dash chooses the queue.
 */
export function defaultQueueOf(id: string, count: number): string {
  const producer = id.slice(0, Math.max(0, id.lastIndexOf('-')));
  return nameOf(crc32c(producer) % count);
}
