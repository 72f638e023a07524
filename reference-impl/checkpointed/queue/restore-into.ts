import { MessageList } from '../memory/message-list.js';
import type { QueueSet } from '../memory/queue-set.js';
import type { RestoredQueue } from '../recovery/redo.js';

/** Makes the queues in memory out of the restored ones. Those that equal their slots count as unchanged. */
export function restoreInto(queues: QueueSet, restored: readonly RestoredQueue[]): void {
  for (const one of restored) {
    const queue = queues.add(one.id, one.definition);
    if (queue === undefined) continue;
    const staged = new MessageList();
    for (const { id, number, body } of one.messages()) {
      // Copy the body. It is a view of a whole segment or slot, which would otherwise stay in memory.
      staged.push({ id, number, body: Buffer.from(body), next: undefined, previous: undefined });
    }
    queue.splice(staged);
    queue.changed = one.isChanged;
  }
}
