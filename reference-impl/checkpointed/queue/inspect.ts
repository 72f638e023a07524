import type { Kernel } from '../../common/platform/kernel.js';
import { countAside } from '../recovery/aside.js';
import { pathsOf } from '../settings.js';
import { readStableState } from './verify.js';

/**
 * Yields the state of a stored queue: one object for the whole, one for each queue, and one for each message.
 * @param summary leaves the messages out.
 */
export function* inspectQueue(directory: string, summary: boolean, kernel: Kernel): Generator<object> {
  const { control, queues, damaged, generation } = readStableState(directory, kernel);
  const keptAside = countAside(pathsOf(directory).aside, kernel);
  yield {
    checkpoint: control.checkpoint,
    generation,
    queues: queues.length,
    keptAside,
    damaged: damaged.length,
  };
  for (const queue of queues) {
    const entry = control.queues.find(({ id }) => id === queue.id);
    const messages = queue.messages();
    const { name, order } = queue.definition;
    yield {
      ...{ queue: name, order, id: queue.id, messages: messages.length, redo: queue.redo },
      slot: entry?.slot ?? null,
      slotCheckpoint: entry?.checkpoint ?? null,
    };
    if (summary) continue;
    for (const { number, id, body } of messages)
      yield { queue: name, number, message: id, bytes: body.length };
  }
}
