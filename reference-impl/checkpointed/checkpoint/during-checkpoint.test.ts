import { join } from 'node:path';
import t from 'tap';
import { linux } from '../../common/platform/linux.js';
import type { Host } from '../host.js';
import { CheckpointedQueue } from '../queue/checkpointed-queue.js';
import { installQueue } from '../queue/install.js';
import { readState } from '../recovery/read-state.js';
import { readSettings } from '../settings.js';
import { inlineHost } from './writer-process.js';

const RUN = { checkpointMs: 2 ** 31 - 1, memoryBytes: 64 * 2 ** 20 };
/** A step from queue to queue takes so long, in milliseconds, that transactions are committed between two of them. */
const STEP_MS = 5;
/** More steps than a checkpoint of these queues takes. */
const STEPS = 12;
const slowHost: Host = {
  ...inlineHost,
  kernel: { ...linux, defer: (callback) => void setTimeout(callback, STEP_MS) },
};
const body = Buffer.from('body');

t.test('queues that are created, changed and deleted while a checkpoint is made are restored', async (t) => {
  const directory = join(t.testdir(), 'queue');
  await installQueue(directory, { segmentBytes: 64 * 1024, segments: 16, queues: 4 }, linux);
  const queue = await CheckpointedQueue.open(directory, RUN, slowHost);
  const settings = readSettings(directory, linux);
  const expected = new Map<string, string[]>([0, 1, 2, 3].map((number) => [`q${number}`, []]));
  const put = async (id: string, name: string) => {
    const { outcome } = await queue.commit({ puts: [{ id, body, queue: name }], consumed: [] });
    t.equal(outcome, 'committed');
    expected.get(name)?.push(id);
  };
  const create = async (name: string) => {
    t.equal(await queue.createQueue({ name, order: 'strict' }), 'created');
    expected.set(name, []);
    await put(`first-${name}`, name);
  };
  for (let steps = 0; steps < STEPS; steps += 1) {
    await create(`old${steps}`);
    for (const name of ['q0', 'q3']) await put(`${steps}-before`, name);
    await queue.checkpoint();
    for (const name of ['q0', 'q3', `old${steps}`]) await put(`${steps}-changed`, name);
    const made = queue.figures().checkpoints;
    const checkpoint = queue.checkpoint();
    await new Promise((resolve) => setTimeout(resolve, steps * STEP_MS));
    await Promise.all([
      queue.deleteQueue(`old${steps}`).then((outcome) => t.equal(outcome, 'deleted')),
      create(`new${steps}`),
      put(`${steps}-meanwhile`, 'q0'),
      put(`${steps}-meanwhile`, 'q3'),
    ]);
    expected.delete(`old${steps}`);
    await checkpoint;
    t.equal(queue.figures().checkpoints, made + 1);
    // What a start would find after a kill at this moment.
    const state = readState(directory, settings, linux);
    t.same(state.damaged, []);
    const found = state.queues.map((one) => [one.definition.name, one.messages().map(({ id }) => id)]);
    t.same(Object.fromEntries(found), Object.fromEntries(expected), `${steps} steps after the beginning`);
    await queue.deleteQueue(`new${steps}`);
    expected.delete(`new${steps}`);
  }
  await queue.close();
});
