import { type Message, MessageList } from './message-list.js';
import type { QueueLock } from './queue-lock.js';

/** The definition of a queue: its name, and how it delivers. */
export interface QueueDefinition {
  name: string;
  /**
   * `strict`: a receiver gets the next message only after the previous one was given back or its consumption has begun. So
   * receivers get messages in commit order, also after a receiver has failed. `relaxed`: several receivers get messages at the
   * same time.
   */
  order: 'strict' | 'relaxed';
}

/** References to the messages of a queue at one moment. A checkpoint writes them. */
export interface QueueSnapshot {
  definition: QueueDefinition;
  /** All messages that are not consumed, in order of their numbers. */
  messages: readonly Message[];
  /** Lowest log position whose transaction may be missing in this snapshot. */
  redoPosition: number;
}

/**
 * Memory that a message takes beside its id and its body, in bytes: objects in the heap of V8, and the management of the body's
 * buffer outside of it. bench/memory.ts measures it as the growth of the process.
 */
export const MESSAGE_OVERHEAD_BYTES = 560;

/** Returns the memory that a message takes, in bytes. */
export const memoryOf = ({ id, body }: Pick<Message, 'id' | 'body'>): number =>
  MESSAGE_OVERHEAD_BYTES + id.length + body.length;

/** One queue in memory: its definition and its contents. Only committed messages are in it. */
export class MemoryQueue {
  /** Number of the queue, never 0 and never used again: the log position of its creation. */
  readonly id: number;
  readonly lock: QueueLock;
  definition: QueueDefinition;
  /** Whether definition or contents differ from the last snapshot. */
  changed = true;
  /** Messages that no receiver holds, in order. */
  readonly ready = new MessageList();
  /** Messages that a receiver holds, by number. */
  readonly taken = new Map<number, Message>();
  /** Messages whose consumption is being committed, by number. They can no longer be given back. */
  readonly leaving = new Map<number, Message>();
  /** Memory of all messages, in bytes. */
  bytes = 0;

  constructor(id: number, definition: QueueDefinition, lock: QueueLock) {
    this.id = id;
    this.definition = definition;
    this.lock = lock;
  }

  get length(): number {
    return this.ready.length + this.taken.size + this.leaving.size;
  }

  /** Splices committed messages into the queue. The caller holds the lock. */
  splice(staged: MessageList): void {
    for (let message = staged.head; message !== undefined; message = message.next)
      this.bytes += memoryOf(message);
    this.ready.splice(staged);
    this.changed = true;
  }

  /** Takes the next message for a receiver. It stays in the queue's contents until its consumption is committed. */
  take(): Message | undefined {
    if (this.definition.order === 'strict' && this.taken.size > 0) return undefined;
    const message = this.ready.head;
    if (message === undefined) return undefined;
    this.ready.remove(message);
    this.taken.set(message.number, message);
    return message;
  }

  /** Gives a taken message back. @returns false when it is not taken. */
  putBack(message: Message): boolean {
    if (!this.taken.delete(message.number)) return false;
    this.ready.putBack(message);
    return true;
  }

  /** Begins the consumption of a taken message. @returns false when it is not taken. */
  leave(message: Message): boolean {
    if (!this.taken.delete(message.number)) return false;
    this.leaving.set(message.number, message);
    return true;
  }

  /** Cancels a consumption that has begun: the receiver still holds the message. */
  stay(message: Message): void {
    if (this.leaving.delete(message.number)) this.taken.set(message.number, message);
  }

  /** Removes a message whose consumption is committed. The caller holds the lock. */
  consume(message: Message): void {
    if (!this.leaving.delete(message.number)) return;
    this.bytes -= memoryOf(message);
    this.changed = true;
  }

  /**
   * Returns references to the contents. The caller holds the lock. It clears `changed` together with the copy, so that a change
   * while the snapshot is written sets the flag again. Otherwise the next checkpoint would skip this queue.
   */
  snapshot(redoPosition: number): QueueSnapshot {
    this.changed = false;
    return { definition: this.definition, messages: this.contents(), redoPosition };
  }

  /** Returns all messages that are not consumed, in order of their numbers. */
  contents(): Message[] {
    const taken = [...this.leaving.values(), ...this.taken.values()];
    const messages = taken.length === 0 ? this.ready.toArray() : [...taken, ...this.ready.toArray()];
    if (taken.length > 0) messages.sort((a, b) => a.number - b.number);
    return messages;
  }
}
