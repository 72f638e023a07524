import { fdatasyncSync, mkdirSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { linux } from '../../common/platform/linux.js';
import { SegmentRing, segmentPath } from '../log/segment-ring.js';
import { DEFAULT_INSTALL_OPTIONS } from '../queue/install.js';

/**
 * Measures the baseline that the speed of the queue is compared with: one process that writes messages of `--bytes` bytes with
 * pwrite into a file like a segment of the log, and calls fdatasync, first after each message, then after `--batch`
 * messages, for `--seconds` each. The calls block; there is no checksum, no index and no second thread. The file is made in
 * `--directory`. It prints one JSON object: messages per second for `single` and `batched`.
 */
const { values } = parseArgs({
  options: {
    directory: { type: 'string', default: '.' },
    seconds: { type: 'string', default: '2' },
    bytes: { type: 'string', default: '1024' },
    batch: { type: 'string', default: '64' },
  },
});

const { segmentBytes } = DEFAULT_INSTALL_OPTIONS;
const directory = join(values.directory, 'floor');
mkdirSync(directory);
await new SegmentRing(directory, segmentBytes, [], linux).prepare(0);
const fd = linux.open(segmentPath(directory, 0), 'r+');

function perSecond(messages: number): number {
  const bytes = Buffer.alloc(messages * Number(values.bytes), 0x62);
  const startedMs = performance.now();
  const endMs = startedMs + Number(values.seconds) * 1000;
  let position = 0;
  let written = 0;
  while (performance.now() < endMs) {
    if (position + bytes.length > segmentBytes) position = 0;
    if (writeSync(fd, bytes, 0, bytes.length, position) !== bytes.length) throw new Error('a short write');
    fdatasyncSync(fd);
    position += bytes.length;
    written += messages;
  }
  return written / ((performance.now() - startedMs) / 1000);
}

const result = { single: perSecond(1), batched: perSecond(Number(values.batch)) };
process.stdout.write(`${JSON.stringify(result)}\n`);
