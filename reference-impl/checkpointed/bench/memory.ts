import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { linux } from '../../common/platform/linux.js';
import { realHost } from '../checkpoint/writer-process.js';
import { memoryOf } from '../memory/memory-queue.js';
import { CheckpointedQueue } from '../queue/checkpointed-queue.js';
import { installQueue } from '../queue/install.js';

/**
 * Measures the memory of `--messages` messages of `--bytes` bytes, in a queue that it installs in `--queue`, an empty directory.
 * Each message has a buffer of its own, as the HTTP server makes it, and an id of 12 bytes. It prints one JSON object, in bytes per
 * message: `measured` is what the heap of V8, the buffers outside of it and the rest of the process (RSS) have grown by after a
 * garbage collection; `counted` is what the queue counts.
 */
const { values } = parseArgs({
  options: {
    queue: { type: 'string', default: '.' },
    messages: { type: 'string', default: '100000' },
    bytes: { type: 'string', default: '1024' },
  },
});
setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
const messages = Number(values.messages);
const AT_ONCE = 1000;
const ID_DIGITS = 10;

await installQueue(values.queue, { segmentBytes: 16 * 2 ** 20, segments: 64, queues: 8 }, linux);
const run = { checkpointMs: 2 ** 31 - 1, memoryBytes: 4 * 2 ** 30 };
const queue = await CheckpointedQueue.open(values.queue, run, realHost);
await put(AT_ONCE);
const before = used();
await put(messages);
await new Promise((resolve) => setTimeout(resolve, 100));
const after = used();
const id = `1-${'0'.repeat(ID_DIGITS)}`;
const result = {
  messages,
  bytes: Number(values.bytes),
  measured: {
    heap: (after.heapUsed - before.heapUsed) / messages,
    external: (after.external - before.external) / messages,
    rss: (after.rss - before.rss) / messages,
  },
  counted: memoryOf({ id, body: Buffer.alloc(Number(values.bytes)) }),
};
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit());

async function put(count: number): Promise<void> {
  for (let number = 0; number < count; number += AT_ONCE) {
    const puts = Array.from({ length: AT_ONCE }, (_, at) => ({
      id: Buffer.from(`${at % 8}-${String(number + at).padStart(ID_DIGITS, '0')}`).toString(),
      body: Buffer.allocUnsafeSlow(Number(values.bytes)).fill(0x61),
    }));
    const { outcome } = await queue.commit({ puts, consumed: [] });
    if (outcome !== 'committed') throw new Error('a message was rejected');
  }
}

function used(): NodeJS.MemoryUsage {
  collect();
  collect();
  return process.memoryUsage();
}
