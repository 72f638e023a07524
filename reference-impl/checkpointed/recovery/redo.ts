import type { ControlEntry } from '../checkpoint/control.js';
import type { ReadSlot, StoredMessage } from '../checkpoint/slot.js';
import { type LogRecord, OPERATION } from '../log/record.js';
import type { QueueDefinition } from '../memory/memory-queue.js';

/** A queue that is being restored: the contents of its slot, to which records of the log are applied. */
export class RestoredQueue {
  readonly id: number;
  /** Position from which records are applied to this queue. */
  readonly redo: number;
  definition: QueueDefinition;
  /** Whether its contents differ from its slot. */
  isChanged: boolean;
  readonly #messages = new Map<number, StoredMessage>();

  constructor(entry: Pick<ControlEntry, 'id' | 'redo' | 'definition'>, slot?: ReadSlot) {
    this.id = entry.id;
    this.redo = entry.redo;
    this.definition = slot?.header?.definition ?? entry.definition;
    this.isChanged = slot === undefined || slot.header === undefined || slot.damaged.length > 0;
    for (const message of slot?.messages ?? []) this.#messages.set(message.number, message);
  }

  /** Returns the messages in order of their numbers. */
  messages(): StoredMessage[] {
    return [...this.#messages.values()].sort((a, b) => a.number - b.number);
  }

  /** Applies a record. Applying it twice has the effect of applying it once. */
  apply({ operation, position, number, id, body }: LogRecord): void {
    if (position < this.redo) return;
    this.isChanged = true;
    if (operation === OPERATION.put && !this.#messages.has(position))
      this.#messages.set(position, { number: position, id, body });
    else if (operation === OPERATION.consume) this.#messages.delete(number);
    else if (operation === OPERATION.change) this.definition = JSON.parse(body.toString()) as QueueDefinition;
  }
}

/** Applies the records of the log, in order, to the queues. @returns the queues that exist afterwards. */
export function redo(queues: readonly RestoredQueue[], records: readonly LogRecord[]): RestoredQueue[] {
  const byId = new Map(queues.map((queue) => [queue.id, queue]));
  for (const record of records) {
    const { operation, position } = record;
    if (operation === OPERATION.create) {
      if (byId.has(position)) continue;
      const definition = JSON.parse(record.body.toString()) as QueueDefinition;
      byId.set(position, new RestoredQueue({ id: position, redo: position, definition }));
    } else if (operation === OPERATION.delete) byId.delete(record.queue);
    else byId.get(record.queue)?.apply(record);
  }
  return [...byId.values()];
}
