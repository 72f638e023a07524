import type { Kernel } from '../../common/platform/kernel.js';
import { MemoryQueue, type QueueDefinition } from './memory-queue.js';
import { type LockTimes, QueueLock } from './queue-lock.js';

/** The local queues of one server, in order of their creation. */
export class QueueSet {
  readonly #kernel: Pick<Kernel, 'monotonicMs'>;
  readonly #byId = new Map<number, MemoryQueue>();
  readonly #byName = new Map<string, MemoryQueue>();
  /** The queues in order. `list` makes it when it is undefined. */
  #list: readonly MemoryQueue[] | undefined;
  readonly lockTimes: LockTimes = { count: 0, lockedMs: 0 };

  constructor(kernel: Pick<Kernel, 'monotonicMs'>) {
    this.#kernel = kernel;
  }

  /** Returns the queues in order of their creation. */
  list(): readonly MemoryQueue[] {
    this.#list ??= [...this.#byId.values()];
    return this.#list;
  }

  byId(id: number): MemoryQueue | undefined {
    return this.#byId.get(id);
  }

  byName(name: string): MemoryQueue | undefined {
    return this.#byName.get(name);
  }

  /** Memory of all messages, in bytes. */
  get bytes(): number {
    let bytes = 0;
    for (const queue of this.list()) bytes += queue.bytes;
    return bytes;
  }

  /** Adds a queue. @returns undefined when there is one with this id or this name. */
  add(id: number, definition: QueueDefinition): MemoryQueue | undefined {
    if (this.#byId.has(id) || this.#byName.has(definition.name)) return undefined;
    const queue = new MemoryQueue(id, definition, new QueueLock(this.#kernel, this.lockTimes));
    this.#byId.set(id, queue);
    this.#byName.set(definition.name, queue);
    this.#list = undefined;
    return queue;
  }

  /** Removes a queue with its messages. */
  remove(queue: MemoryQueue): void {
    this.#byId.delete(queue.id);
    this.#byName.delete(queue.definition.name);
    this.#list = undefined;
  }
}
