import t from 'tap';
import { MemoryQueue, memoryOf } from './memory-queue.js';
import { type Message, MessageList } from './message-list.js';
import { QueueLock } from './queue-lock.js';
import { QueueSet } from './queue-set.js';

const clock = { monotonicMs: () => 0 };
const message = (number: number): Message => ({
  id: `${number}`,
  body: Buffer.alloc(10),
  number,
  next: undefined,
  previous: undefined,
});

function queueOf(numbers: number[], order: 'strict' | 'relaxed' = 'relaxed'): MemoryQueue {
  const queue = new MemoryQueue(1, { name: 'q', order }, new QueueLock(clock, { count: 0, lockedMs: 0 }));
  const staged = new MessageList();
  for (const number of numbers) staged.push(message(number));
  queue.splice(staged);
  return queue;
}

t.test(
  'a snapshot has what is ready, taken and leaving, in order, and clears the flag with the copy',
  async (t) => {
    const queue = queueOf([1, 2, 3, 4]);
    const first = queue.take();
    const second = queue.take();
    if (first === undefined || second === undefined) throw new Error('two messages are ready');
    t.ok(queue.leave(second));
    t.same(
      queue.snapshot(7).messages.map(({ number }) => number),
      [1, 2, 3, 4],
    );
    t.equal(queue.changed, false);
    queue.consume(second);
    t.equal(queue.changed, true, 'a change behind the copy sets the flag again');
    t.same(
      queue.snapshot(8).messages.map(({ number }) => number),
      [1, 3, 4],
    );
    t.equal(queue.bytes, 3 * memoryOf(first));
  },
);

t.test('a message leaves once, and comes back at its place', async (t) => {
  const queue = queueOf([1, 2, 3]);
  const first = queue.take();
  const second = queue.take();
  if (first === undefined || second === undefined) throw new Error('two messages are ready');
  t.notOk(queue.leave(queue.ready.head as Message), 'a message that nobody has');
  t.ok(queue.leave(first));
  t.notOk(queue.leave(first));
  t.notOk(queue.putBack(first), 'it can no longer be given back');
  queue.stay(first);
  t.ok(queue.putBack(second));
  t.ok(queue.putBack(first));
  t.same(
    [...queue.ready].map(({ number }) => number),
    [1, 2, 3],
  );
  queue.consume(first);
  t.equal(queue.length, 3, 'only what is leaving can be consumed');
  t.same([queue.taken.size, queue.leaving.size], [0, 0], 'nothing is kept in the maps');
});

t.test('a lock is held once at a time, is released by an error, and its time is counted', async (t) => {
  let now = 0;
  const times = { count: 0, lockedMs: 0 };
  const lock = new QueueLock({ monotonicMs: () => now }, times);
  lock.hold(() => {
    now += 3;
    t.throws(() => lock.hold(() => undefined), { code: 'assertion' });
  });
  t.throws(() =>
    lock.hold(() => {
      throw new Error('inside');
    }),
  );
  lock.hold(() => undefined);
  t.match(times, { count: 3, lockedMs: 3 });
});

t.test('names and numbers of a set are unique', async (t) => {
  const queues = new QueueSet(clock);
  const first = queues.add(1, { name: 'a', order: 'strict' });
  t.equal(queues.add(2, { name: 'a', order: 'strict' }), undefined);
  t.equal(queues.add(1, { name: 'b', order: 'strict' }), undefined);
  if (first !== undefined) queues.remove(first);
  t.ok(queues.add(2, { name: 'a', order: 'strict' }));
  t.equal(queues.list().length, 1);
});
