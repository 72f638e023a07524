import { parseArgs } from 'node:util';
import { linux } from '../../common/platform/linux.js';
import { realHost } from '../checkpoint/writer-process.js';
import { SegmentRing } from '../log/segment-ring.js';
import { CheckpointedQueue } from '../queue/checkpointed-queue.js';
import { installQueue } from '../queue/install.js';
import type { CommitOutcome, TakenMessage } from '../queue/types.js';
import { pathsOf } from '../settings.js';
import { Latencies } from './latencies.js';

/**
 * Measures the queue alone through its own interface, in one process. It installs a queue in `--queue`, an empty directory.
 * Each of `--producers` concurrent producers has one message of `--bytes` bytes in flight. A consumer beside them keeps
 * `--contents` messages in the queue, and consumes in transactions of 64 messages: without it the contents, and with them
 * each checkpoint, would grow during the run. A checkpoint begins `--checkpoint` milliseconds after the one before has ended, and
 * is spread over half of this time, as the server does. With `--alone` there is neither a consumer nor a checkpoint.
 *
 * The log begins with `--segments` segments that are there already, as in a server whose ring has gone around once: the raw disk,
 * which the result is compared with, has its file already too.
 *
 * After `--warmup` seconds that do not count, the load runs for `--seconds`. It prints one JSON object: the messages that were
 * confirmed per second; p50Ms and p99Ms of the commits that a checkpoint fell into (`during`), and of the others (`outside`); the
 * number of checkpoints, and their mean duration; the part of the time in which a queue was locked.
 */
const { values } = parseArgs({
  options: {
    queue: { type: 'string', default: '.' },
    producers: { type: 'string', default: '64' },
    seconds: { type: 'string', default: '4' },
    warmup: { type: 'string', default: '2' },
    bytes: { type: 'string', default: '1024' },
    contents: { type: 'string', default: '10000' },
    segments: { type: 'string', default: '40' },
    checkpoint: { type: 'string', default: '2000' },
    alone: { type: 'boolean', default: false },
  },
});
const contents = Number(values.contents);
const producers = Number(values.producers);
const CONSUMED_AT_ONCE = 64;
const NEVER_MS = 2 ** 31 - 1;

const segmentBytes = 16 * 2 ** 20;
await installQueue(values.queue, { segmentBytes, segments: 256, queues: 8 }, linux);
const ring = new SegmentRing(pathsOf(values.queue).log, segmentBytes, [], linux);
for (let sequence = 0; sequence < Number(values.segments); sequence += 1) await ring.prepare(sequence);
// The checkpoints are made below, so that their times are known.
const run = { checkpointMs: NEVER_MS, memoryBytes: 2 ** 33 };
const queue = await CheckpointedQueue.open(values.queue, run, realHost);
for (let at = 0; at < 8; at += 1) await queue.changeQueue({ name: `q${at}`, order: 'relaxed' });

/**
 * The bodies of the messages, used in turn. They are made before: their memory is the work of the producers, and takes as long as
 * the rest of a commit. They are more than a cache of the processor holds.
 */
const bodies = Array.from({ length: 2 ** 15 }, () => Buffer.alloc(Number(values.bytes), 0x61));
const NONE: readonly TakenMessage[] = [];
const latencies = new Latencies();
let isMeasured = false;
let isEnded = false;
let end: () => void = () => undefined;
const ended = new Promise<void>((resolve) => {
  end = resolve;
});
let submitted = 0;
let present = 0;
let checkpoints = 0;
let checkpointsMs = 0;
let isCheckpoint = false;

function put(id: string): Promise<CommitOutcome> {
  const body = bodies[submitted % bodies.length] as Buffer;
  submitted += 1;
  return queue.commit({ puts: [{ id, body }], consumed: NONE });
}

function count(result: CommitOutcome): void {
  if (result.outcome === 'rejected') throw new Error(`rejected: ${result.reason}, ${result.detail}`);
  present += 1;
}

async function produce(producer: number): Promise<void> {
  for (let number = 1; !isEnded; number += 1) {
    const before = checkpoints;
    const wasCheckpoint = isCheckpoint;
    const sentMs = performance.now();
    count(await put(`${producer}-${number}`));
    const isDuring = wasCheckpoint || isCheckpoint || before !== checkpoints;
    if (isMeasured) latencies.add(performance.now() - sentMs, isDuring);
  }
}

async function consume(): Promise<void> {
  while (!isEnded) {
    const consumed = [];
    while (consumed.length < CONSUMED_AT_ONCE && present - consumed.length > contents) {
      const taken = queue.take();
      if (taken === undefined) break;
      consumed.push(taken);
    }
    if (consumed.length < CONSUMED_AT_ONCE) {
      for (const taken of consumed) queue.putBack(taken);
      await new Promise((resolve) => setTimeout(resolve, 1));
      continue;
    }
    await queue.commit({ puts: [], consumed });
    present -= consumed.length;
  }
}

async function makeCheckpoints(): Promise<void> {
  for (;;) {
    await Promise.race([wait(Number(values.checkpoint) / 1000), ended]);
    if (isEnded) return;
    const startedMs = performance.now();
    isCheckpoint = true;
    await queue.checkpointOver(Number(values.checkpoint) / 2);
    isCheckpoint = false;
    checkpoints += 1;
    if (isMeasured) checkpointsMs += performance.now() - startedMs;
  }
}

// Fill the queue first, many messages at once.
for (let number = 0; number < contents; number += 100)
  for (const result of await Promise.all(Array.from({ length: 100 }, (_, at) => put(`fill${at}-${number}`))))
    count(result);

const beside = values.alone ? [] : [consume(), makeCheckpoints()];
const load = [...beside, ...Array.from({ length: producers }, (_, at) => produce(at))];
await wait(Number(values.warmup));
isMeasured = true;
const before = { ...queue.figures(), made: checkpoints, startedMs: performance.now() };
const usage = process.cpuUsage();
await wait(Number(values.seconds));
isMeasured = false;
const after = queue.figures();
const { user, system } = process.cpuUsage(usage);
const seconds = (performance.now() - before.startedMs) / 1000;
if (after.failedCheckpoints > 0) throw new Error('a checkpoint has failed');
const made = checkpoints - before.made;
isEnded = true;
end();
await Promise.all(load);
await queue.close();

const result = {
  msgsPerSecond: latencies.count / seconds,
  outside: latencies.outside(),
  during: latencies.during(),
  checkpoints: made,
  checkpointMs: made === 0 ? 0 : checkpointsMs / made,
  lockedShare: (after.lockedMs - before.lockedMs) / (after.upMs - before.upMs),
  cpuUsPerMessage: (user + system) / latencies.count,
};
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit());

function wait(forSeconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, forSeconds * 1000));
}
