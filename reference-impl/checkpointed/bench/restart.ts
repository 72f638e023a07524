import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { linux } from '../../common/platform/linux.js';
import { realHost } from '../checkpoint/writer-process.js';
import { CheckpointedQueue } from '../queue/checkpointed-queue.js';
import { installQueue } from '../queue/install.js';
import { readState } from '../recovery/read-state.js';
import { readSettings } from '../settings.js';

/**
 * Measures a start after a kill. A process installs a queue in `--queue`, an empty directory, puts `--messages` messages of
 * `--bytes` bytes into it and kills itself. With `--in slots` a checkpoint has written all of them; with `--in log` none has, so
 * that the start redoes all of them from the log and writes them into slots. Another process then opens the queue.
 *
 * It prints one JSON object: `seconds` until the queue is ready, and how long a second reading of the same files takes alone
 * (`readSeconds`), which is part of it.
 */
const { values } = parseArgs({
  options: {
    queue: { type: 'string', default: '.' },
    messages: { type: 'string', default: '10000' },
    bytes: { type: 'string', default: '1024' },
    in: { type: 'string', default: 'slots' },
    fill: { type: 'boolean', default: false },
  },
});
const run = { checkpointMs: 2 ** 31 - 1, memoryBytes: 4 * 2 ** 30 };
const messages = Number(values.messages);
const AT_ONCE = 1000;
const SEGMENT_BYTES = 16 * 2 ** 20;

if (values.fill) await fill();
else {
  const { signal } = spawnSync(process.execPath, [...process.argv.slice(1), '--fill'], { stdio: 'inherit' });
  if (signal !== 'SIGKILL') throw new Error('the queue was not filled');
  const readMs = timed(() => readState(values.queue, readSettings(values.queue, linux), linux));
  const startedMs = performance.now();
  const queue = await CheckpointedQueue.open(values.queue, run, realHost);
  const seconds = (performance.now() - startedMs) / 1000;
  const restored = queue.figures().messages;
  if (restored !== messages) throw new Error(`${restored} messages were restored, expected ${messages}`);
  const result = { messages, in: values.in, seconds, readSeconds: readMs / 1000 };
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit());
}

async function fill(): Promise<void> {
  // No checkpoint begins by itself while less than half of the log is in use.
  const segments = 8 + Math.ceil((2.2 * messages * (Number(values.bytes) + 128)) / SEGMENT_BYTES);
  await installQueue(values.queue, { segmentBytes: SEGMENT_BYTES, segments, queues: 8 }, linux);
  const queue = await CheckpointedQueue.open(values.queue, run, realHost);
  const body = Buffer.alloc(Number(values.bytes), 0x61);
  for (let first = 0; first < messages; first += AT_ONCE) {
    const count = Math.min(AT_ONCE, messages - first);
    const puts = Array.from({ length: count }, (_, at) => ({ id: `${at}-${first}`, body }));
    const { outcome } = await queue.commit({ puts, consumed: [] });
    if (outcome !== 'committed') throw new Error('a message was rejected');
  }
  if (values.in === 'slots') await queue.checkpoint();
  if (queue.figures().checkpoints !== (values.in === 'slots' ? 2 : 1))
    throw new Error('a checkpoint was made that was not wanted');
  process.kill(process.pid, 'SIGKILL');
}

function timed(work: () => unknown): number {
  const startedMs = performance.now();
  work();
  return performance.now() - startedMs;
}
