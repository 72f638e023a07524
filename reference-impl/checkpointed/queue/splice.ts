import type { StagedOperation } from '../log/log.js';
import { OPERATION } from '../log/record.js';
import type { MemoryQueue, QueueDefinition } from '../memory/memory-queue.js';
import { type Message, MessageList } from '../memory/message-list.js';
import type { QueueSet } from '../memory/queue-set.js';

/** An operation that is staged in memory and logged. */
export interface StagedChange extends StagedOperation {
  /** The message of a put or a consumption. */
  message: Message | undefined;
  /** The definition of a queue that is created or changed. */
  definition: QueueDefinition | undefined;
}

/**
 * Splices logged transactions into the queues, in the order of the log. Each queue is locked once for all transactions together.
 */
export function splice(queues: QueueSet, transactions: readonly (readonly StagedChange[])[]): void {
  const ofQueue = new Map<number, StagedChange[]>();
  for (const changes of transactions) {
    for (const change of changes) {
      if (change.operation === OPERATION.create) {
        if (change.definition !== undefined) queues.add(change.position, change.definition);
        continue;
      }
      const known = ofQueue.get(change.queue);
      if (known === undefined) ofQueue.set(change.queue, [change]);
      else known.push(change);
    }
  }
  for (const [id, changes] of ofQueue) {
    // An earlier transaction has deleted the queue. A recovery leaves these records out too.
    const queue = queues.byId(id);
    if (queue !== undefined) queue.lock.hold(() => spliceInto(queues, queue, changes));
  }
}

function spliceInto(queues: QueueSet, queue: MemoryQueue, changes: readonly StagedChange[]): void {
  const staged = new MessageList();
  for (const { operation, message, definition, position } of changes) {
    if (operation === OPERATION.put && message !== undefined) {
      message.number = position;
      staged.push(message);
    } else if (operation === OPERATION.consume && message !== undefined) queue.consume(message);
    else if (operation === OPERATION.change && definition !== undefined) {
      queue.definition = definition;
      queue.changed = true;
    } else if (operation === OPERATION.delete) {
      queues.remove(queue);
      return;
    }
  }
  queue.splice(staged);
}
