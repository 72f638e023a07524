import { crc32cOfText } from '../../common/record/checksum.js';
import type { QueueDefinition } from './memory-queue.js';

/** The names of default queues that were asked for, by number. */
const NAMES: string[] = [];

const nameOf = (number: number): string => {
  NAMES[number] ??= `q${number}`;
  return NAMES[number];
};

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
  return nameOf(crc32cOfText(id, Math.max(0, id.lastIndexOf('-'))) % count);
}
