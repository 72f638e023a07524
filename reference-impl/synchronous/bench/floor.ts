import { openSync, statSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { DataMap } from '../../common/platform/data-map.js';
import { pairPaths } from '../queue/paths.js';
import { loadSettings } from '../settings/load.js';

/**
 * Measures the baseline that the queue's throughput is compared with, on the queue's own data file. One
 * process copies messages of `--bytes` bytes into the file and msyncs them, first one message per msync, then
 * `--batch` messages per msync, for `--seconds` each. It uses no index, no checksum and no second process. It
 * destroys the queue's content. It prints one JSON object: messages per second for `single` and `batched`.
 */
const { values } = parseArgs({
  options: {
    queue: { type: 'string', default: '.' },
    seconds: { type: 'string', default: '2' },
    bytes: { type: 'string', default: '1024' },
    batch: { type: 'string', default: '64' },
  },
});

const [pair] = loadSettings({ directory: values.queue, installed: 'needed' }).pairs;
if (!pair) throw new Error('a queue has at least one pair');
const path = pairPaths(pair).data;
const sizeBytes = statSync(path).size;
const data = new DataMap(openSync(path, 'r+'), sizeBytes, 2 ** 20);
const message = Buffer.alloc(Number(values.bytes), 0x62);
const stepBytes = Math.ceil((message.length + 128) / 256) * 256;

function perSecond(batch: number): number {
  const startedMs = performance.now();
  const endMs = startedMs + Number(values.seconds) * 1000;
  let offset = 4096;
  let written = 0;
  while (performance.now() < endMs) {
    if (offset + batch * stepBytes > sizeBytes - 4096) offset = 4096;
    for (let index = 0; index < batch; index += 1) {
      const { bytes, at } = data.locate(offset + index * stepBytes, stepBytes);
      bytes.set(message, at);
    }
    if (data.sync(offset, batch * stepBytes) !== 0) throw new Error('msync failed');
    offset += batch * stepBytes;
    written += batch;
  }
  return written / ((performance.now() - startedMs) / 1000);
}

const result = { single: perSecond(1), batched: perSecond(Number(values.batch)) };
process.stdout.write(`${JSON.stringify(result)}\n`);
