import { assert } from '../../common/platform/errors.js';

/** A message in memory. */
export interface Message {
  /** The id that the producer chose. */
  readonly id: string;
  readonly body: Buffer;
  /** Number of the message: the log position of its record. 0 until it is logged. */
  number: number;
  next: Message | undefined;
  previous: Message | undefined;
}

/**
 * A doubly linked list of messages in order of their numbers. The messages of a commit are in a list of their own. One step
 * splices it into the list of the queue, whatever its length.
 */
export class MessageList {
  head: Message | undefined;
  tail: Message | undefined;
  length = 0;

  /** Appends one message. */
  push(message: Message): void {
    message.previous = this.tail;
    message.next = undefined;
    if (this.tail === undefined) this.head = message;
    else this.tail.next = message;
    this.tail = message;
    this.length += 1;
  }

  /** Appends all messages of another list, which is empty afterwards. */
  splice(list: MessageList): void {
    if (list.head === undefined) return;
    list.head.previous = this.tail;
    if (this.tail === undefined) this.head = list.head;
    else this.tail.next = list.head;
    this.tail = list.tail;
    this.length += list.length;
    list.head = undefined;
    list.tail = undefined;
    list.length = 0;
  }

  /** Removes a message of this list. */
  remove(message: Message): void {
    if (message.previous === undefined) this.head = message.next;
    else message.previous.next = message.next;
    if (message.next === undefined) this.tail = message.previous;
    else message.next.previous = message.previous;
    message.next = undefined;
    message.previous = undefined;
    this.length -= 1;
    assert(this.length >= 0, 'a message is removed from a list that contains it');
  }

  /** Puts a message back at the place of its number. The search begins at the head, because the place is mostly there. */
  putBack(message: Message): void {
    let after = this.head;
    while (after !== undefined && after.number < message.number) after = after.next;
    if (after === undefined) {
      this.push(message);
      return;
    }
    message.next = after;
    message.previous = after.previous;
    if (after.previous === undefined) this.head = message;
    else after.previous.next = message;
    after.previous = message;
    this.length += 1;
  }

  /** Returns the messages in order. It is quicker than the iterator: a queue is locked meanwhile. */
  toArray(): Message[] {
    const messages: Message[] = [];
    for (let message = this.head; message !== undefined; message = message.next) messages.push(message);
    return messages;
  }

  /** Yields the messages in order. */
  *[Symbol.iterator](): Generator<Message> {
    for (let message = this.head; message !== undefined; message = message.next) yield message;
  }
}
