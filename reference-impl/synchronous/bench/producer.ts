import { parseArgs } from 'node:util';
import { openQueue } from '../queue/open.js';
import type { SmtpBody } from '../record/body.js';
import { loadSettings } from '../settings/load.js';

/**
 * Puts load on the queue alone, without a gateway. Each of `--producers` concurrent producers has one message
 * of `--bytes` bytes in flight. After `--warmup` seconds that do not count, the load runs for `--seconds` or
 * until the queue is full. The program waits for a line on stdin before it begins, so that several processes
 * can begin at the same time. It prints one JSON object: confirmed, seconds, p50Ms, p99Ms, cpuUsPerMessage,
 * and warmUp (messages confirmed during the warm-up).
 */
const { values } = parseArgs({
  options: {
    queue: { type: 'string', default: '.' },
    producers: { type: 'string', default: '16' },
    seconds: { type: 'string', default: '4' },
    warmup: { type: 'string', default: '2' },
    bytes: { type: 'string', default: '1024' },
  },
});

const queue = await openQueue(loadSettings({ directory: values.queue, installed: 'needed' }));
const body: SmtpBody = {
  type: 'smtp',
  sender: 'producer@example.org',
  recipients: ['consumer@example.net'],
  data: Buffer.alloc(Number(values.bytes), 0x61),
};
process.stdout.write('ready\n');
await new Promise((resolve) => process.stdin.once('data', resolve));

const latenciesMs: number[] = [];
let full = false;

async function produce(endMs: number): Promise<void> {
  while (!full && performance.now() < endMs) {
    const sentMs = performance.now();
    const { outcome } = await queue.enqueue([body]);
    if (outcome === 'confirmed') latenciesMs.push(performance.now() - sentMs);
    else full = true;
  }
}

async function produceFor(forSeconds: number): Promise<void> {
  const endMs = performance.now() + forSeconds * 1000;
  await Promise.all(Array.from({ length: Number(values.producers) }, () => produce(endMs)));
}

await produceFor(Number(values.warmup));
const warmUp = latenciesMs.length;
latenciesMs.length = 0;
const startedMs = performance.now();
const usage = process.cpuUsage();
await produceFor(Number(values.seconds));
const seconds = (performance.now() - startedMs) / 1000;
latenciesMs.sort((a, b) => a - b);
const at = (share: number): number => latenciesMs[Math.floor(share * (latenciesMs.length - 1))] ?? 0;
const { user, system } = process.cpuUsage(usage);
const cpuUsPerMessage = (user + system) / latenciesMs.length;
const confirmed = latenciesMs.length;
const result = { confirmed, seconds, p50Ms: at(0.5), p99Ms: at(0.99), cpuUsPerMessage, warmUp };
process.stdout.write(`${JSON.stringify(result)}\n`);
process.stdin.destroy();
await queue.close();
