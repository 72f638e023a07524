import t from 'tap';
import { installed, opened, put, storedIds } from '../fixtures/queue.js';

/** Far longer than this test may take. */
const HOUR_MS = 3_600_000;

t.test(
  'a checkpoint that is spread over a long time lets transactions go on, and ends when it is urgent',
  async (t) => {
    const directory = await installed(t, { queues: 2 });
    const queue = await opened(t, directory);
    await put(queue, 'a', 10, 'q0');
    await put(queue, 'b', 10, 'q1');
    let isEnded = false;
    const spread = queue.checkpointOver(HOUR_MS).then(() => {
      isEnded = true;
    });
    await put(queue, 'c', 10, 'q0');
    await put(queue, 'd', 10, 'q1');
    t.equal(isEnded, false, 'it pauses between two queues');
    const before = queue.figures().checkpoints;
    await queue.checkpoint();
    await spread;
    t.equal(queue.figures().checkpoints, before + 1, 'the call waits for the same checkpoint');
    t.same(storedIds(directory), { q0: ['a', 'c'], q1: ['b', 'd'] });
  },
);

t.test('a queue is closed without waiting for the pauses of a checkpoint', async (t) => {
  const directory = await installed(t, { queues: 2 });
  const queue = await opened(t, directory);
  await put(queue, 'a', 10, 'q0');
  await put(queue, 'b', 10, 'q1');
  const spread = queue.checkpointOver(HOUR_MS);
  await queue.close();
  await spread;
  t.same(storedIds(directory), { q0: ['a'], q1: ['b'] });
});
