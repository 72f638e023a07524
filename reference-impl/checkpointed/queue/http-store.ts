import type { MessageStore, QueueInfo } from '../../common/http/store.js';
import { QueueError } from '../../common/platform/errors.js';
import type { QueueDefinition } from '../memory/memory-queue.js';
import type { CheckpointedQueue } from './checkpointed-queue.js';

/** Makes the store of the HTTP front out of a queue. Each request is a transaction of its own. */
export function httpStore(queue: CheckpointedQueue): MessageStore {
  return {
    commit: (change) => queue.commit(change),
    take: (name) => queue.take(name),
    putBack: (taken) => queue.putBack(taken),
    onReady: (callback) => queue.onReady(callback),
    queues: () =>
      queue
        .queues()
        .map(
          ({ definition: { name, ...definition }, ...figures }): QueueInfo => ({
            name,
            definition,
            ...figures,
          }),
        )
        .sort((a, b) => (a.name < b.name ? -1 : 1)),
    createQueue: async (name, definition) => refused(() => queue.createQueue(definitionOf(name, definition))),
    changeQueue: async (name, definition) => refused(() => queue.changeQueue(definitionOf(name, definition))),
    deleteQueue: (name) => queue.deleteQueue(name),
    status: () => ({ ...queue.figures() }),
  };
}

function definitionOf(
  name: string,
  { order = 'strict', ...others }: Record<string, string | number>,
): QueueDefinition {
  const [unknown] = Object.keys(others);
  if (unknown !== undefined)
    throw new QueueError('bad-setting', `queue ${name}: found ${unknown}, expected only order`);
  // The queue checks name and order.
  return { name, order: order as QueueDefinition['order'] };
}

async function refused<T>(run: () => Promise<T>): Promise<T | 'rejected'> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof QueueError && error.code === 'bad-setting') return 'rejected';
    throw error;
  }
}
