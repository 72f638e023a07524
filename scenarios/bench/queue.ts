import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { execa } from 'execa';
import { removeTree } from '../../faults/files/remove-tree.js';
import { referenceProgram } from './programs.js';

/** Figures of a run of producers on the queue alone. */
export interface QueueFigures {
  msgsPerSecond: number;
  p50Ms: number;
  p99Ms: number;
  syncsPerMessage: number;
}

/** Messages per second of the raw floor: with one msync per message, and with one msync per 64 messages. */
export interface FloorFigures {
  single: number;
  batched: number;
}

interface ProducerOutput {
  confirmed: number;
  seconds: number;
  p50Ms: number;
  p99Ms: number;
  warmUp: number;
}

const MESSAGE_BYTES = 1024;

/**
 * Installs a queue with a data file of `dataMiB` MiB in a new directory below `directory`, calls `measure`
 * with that directory, and removes the directory.
 */
export async function withQueue<T>(
  directory: string,
  dataMiB: number,
  measure: (queue: string) => Promise<T>,
): Promise<T> {
  const queue = await mkdtemp(join(directory, 'plugpull-bench-'));
  try {
    const entries = Math.floor((dataMiB * 2 ** 20) / 1280);
    const flags = ['--data-bytes', `${dataMiB}MiB`, '--entries', `${entries}`, '--max-record-bytes', '1MiB'];
    flags.push('--dead-letter-data-bytes', '4MiB', '--dead-letter-entries', '1000');
    await execa(process.execPath, [
      referenceProgram('synchronous/main.js'),
      'install',
      '--queue',
      queue,
      ...flags,
    ]);
    return await measure(queue);
  } finally {
    removeTree(queue);
  }
}

/** Measures the raw floor on the queue's own data file, which destroys the content of the queue. */
export async function measureFloor(queue: string): Promise<FloorFigures> {
  const args = [
    referenceProgram('synchronous/bench/floor.js'),
    '--queue',
    queue,
    '--bytes',
    `${MESSAGE_BYTES}`,
  ];
  const { stdout } = await execa(process.execPath, args);
  return JSON.parse(stdout) as FloorFigures;
}

/**
 * Measures `processes` workers with `producers` concurrent producers each, and one sync helper, for
 * `seconds`. The messages have 1 KiB.
 */
export async function measureQueue(
  queue: string,
  processes: number,
  producers: number,
  seconds: number,
): Promise<QueueFigures> {
  const helper = execa(
    process.execPath,
    [referenceProgram('synchronous/main.js'), 'helper', '--queue', queue, '--pair', '0'],
    {
      stderr: 'inherit',
      reject: false,
    },
  );
  try {
    await waitForFirstLine(helper);
    const workers = Array.from({ length: processes }, () =>
      execa(
        process.execPath,
        [
          referenceProgram('synchronous/bench/producer.js'),
          ...['--queue', queue, '--producers', `${producers}`],
          ...['--seconds', `${seconds}`, '--bytes', `${MESSAGE_BYTES}`],
        ],
        { stderr: 'inherit' },
      ),
    );
    await Promise.all(workers.map(waitForFirstLine));
    for (const worker of workers) worker.stdin.write('go\n');
    const results = await Promise.all(workers);
    return await summarise(
      queue,
      results.map(({ stdout }) => JSON.parse(stdout.split('\n').at(-1) ?? '')),
    );
  } finally {
    helper.kill('SIGTERM');
    await helper;
  }
}

/** Waits for the first line of a program's output, which means that the program is ready. */
async function waitForFirstLine({ stdout }: { stdout: Readable }): Promise<void> {
  const lines = createInterface({ input: stdout });
  await new Promise((resolve, reject) => {
    lines.once('line', resolve);
    lines.once('close', () => reject(new Error('the program ended before it was ready')));
  });
}

async function summarise(queue: string, produced: ProducerOutput[]): Promise<QueueFigures> {
  const confirmed = produced.reduce((sum, { confirmed: count, warmUp }) => sum + count + warmUp, 0);
  const { stdout } = await execa(process.execPath, [
    referenceProgram('synchronous/main.js'),
    'inspect',
    '--queue',
    queue,
    '--summary',
  ]);
  const { batches } = JSON.parse(stdout.split('\n')[0] ?? '{}') as { batches: number };
  return {
    msgsPerSecond: produced.reduce((sum, { confirmed: count, seconds }) => sum + count / seconds, 0),
    p50Ms: Math.max(...produced.map(({ p50Ms }) => p50Ms)),
    p99Ms: Math.max(...produced.map(({ p99Ms }) => p99Ms)),
    syncsPerMessage: batches / confirmed,
  };
}
